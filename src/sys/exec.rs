//! Running an operator's command with a deadline.
//!
//! Why not a plain `Command::output`: a check or reload may hang, may leave a background child
//! that keeps the output pipe open, may print gigabytes, and may itself start processes that must
//! go when it is given up. So a command gets its own process group, no input, a clean environment,
//! one output pipe of which a bounded part is kept, and TERM then KILL for the whole group. What is
//! not kept is read at a pace: a command that floods is neither stuck for ever nor busy.
//!
//! The way of the bytes: `CommandLine` (what the operator wrote) -> `with` puts the variables in
//! -> `run` -> `Finished` or `ExecError`, both with the output.
//!
//! Invariants:
//! * Nothing the daemon opened reaches the command: everything is opened close-on-exec (the default
//!   of Rust's standard library; a test here looks).
//! * The end of the command is its own exit, never end-of-file of a grandchild's pipe.
//! * A dropped `run` future kills the group: nothing outlives a shutdown unnoticed. A group that
//!   ended in time may leave background processes behind; that is what the operator wrote.
//!
//! Deliberately not here: retries, and knowing why the command runs.

use crate::base::limits;
use crate::sys::users::{AccountError, Identity};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::time::Instant;

/// Where commands are looked for when this process has no `PATH`.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// Run by `/bin/sh -c`.
    Shell(String),
    /// Program and arguments, no shell. Never empty.
    Argv(Vec<String>),
}

/// Names and values a command may use.
pub type Variables<'a> = [(&'a str, &'a str)];

impl CommandLine {
    /// Puts variables in place of `{{.name}}`, `{{ .name }}`, `{{name}}` and `{{ name }}`; quoted
    /// for the shell where there is one. Other braces are left alone: commands like
    /// `docker ps --format '{{.Names}}'` have their own.
    #[must_use]
    pub fn with(&self, variables: &Variables<'_>) -> Self {
        match self {
            Self::Shell(text) => Self::Shell(substitute(text, variables, shell_quote)),
            Self::Argv(words) => {
                let plain = |value: &str| value.to_owned();
                Self::Argv(words.iter().map(|word| substitute(word, variables, plain)).collect())
            }
        }
    }

    fn to_command(&self) -> tokio::process::Command {
        match self {
            Self::Shell(text) => {
                let mut command = tokio::process::Command::new("/bin/sh");
                command.arg("-c").arg(text);
                command
            }
            Self::Argv(words) => {
                let (program, arguments) =
                    words.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
                let mut command = tokio::process::Command::new(program);
                command.args(arguments);
                command
            }
        }
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Shell(text) => f.write_str(text),
            Self::Argv(words) => {
                let words: Vec<String> = words.iter().map(|word| shell_quote(word)).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

fn substitute(text: &str, variables: &Variables<'_>, quote: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let value = after.split_once("}}").and_then(|(inside, tail)| {
            let name = inside.trim();
            let name = name.strip_prefix('.').unwrap_or(name);
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((value, tail))
        });
        match value {
            Some((value, tail)) => {
                out.push_str(&quote(value));
                rest = tail;
            }
            None => {
                out.push_str("{{");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// `text` as one word of a POSIX shell; plain words stay as they are.
#[must_use]
pub fn shell_quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What a command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Both streams in the order written, at most `limits::COMMAND_OUTPUT_BYTES_MAX`, as text.
    pub text: String,
    /// Bytes that were written beyond those.
    pub bytes_not_kept: u64,
}

/// Its last lines, shown indented below an error message; empty output shows nothing.
impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let left_out = self.text.lines().count().saturating_sub(limits::COMMAND_LINES_SHOWN_MAX);
        if left_out > 0 {
            write!(f, "\n  | ({left_out} lines before these)")?;
        }
        for line in self.text.lines().skip(left_out) {
            write!(f, "\n  | {line}")?;
        }
        if self.bytes_not_kept > 0 {
            write!(f, "\n  | ({} bytes more were written and not kept)", self.bytes_not_kept)?;
        }
        Ok(())
    }
}

/// A command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It could not be started at all.
    #[error("cannot start `{command}`; is the program installed and on PATH?")]
    Start {
        /// The command.
        command: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nobody to run it as.
    #[error("`{command}` is not run")]
    Nobody {
        /// The command.
        command: String,
        /// Why.
        #[source]
        source: AccountError,
    },
    /// It ended with a status other than 0.
    #[error("`{command}` ended with {ending}{output}", ending = ending(*status))]
    Failed {
        /// The command.
        command: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// What it printed.
        output: Output,
    },
    /// It did not end in time and was killed with everything it started.
    #[error("`{command}` did not end within {seconds} s and was killed{output}",
        seconds = timeout.as_secs_f64())]
    TimedOut {
        /// The command.
        command: String,
        /// The time it had.
        timeout: Duration,
        /// What it printed.
        output: Output,
    },
}

impl ExecError {
    /// The same error with nothing of what the command printed, for commands that see secrets.
    #[must_use]
    pub fn without_output(mut self) -> Self {
        match &mut self {
            Self::Start { .. } | Self::Nobody { .. } => {}
            Self::Failed { output, .. } | Self::TimedOut { output, .. } => {
                *output = Output { text: "(not shown)".to_owned(), bytes_not_kept: 0 };
            }
        }
        self
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// Runs a command to its end or its deadline. Its environment is `PATH`, and each of `variables`:
/// `src` as `ALTHING_SRC`.
///
/// # Errors
/// When it cannot start, fails, or is killed after `timeout`.
pub async fn run(
    line: &CommandLine,
    variables: &Variables<'_>,
    timeout: Duration,
) -> Result<Output, ExecError> {
    run_as(None, line, variables, timeout).await
}

/// The same as somebody else, who is in no group but its first; `None` = as this process.
///
/// # Errors
/// Those of `run`; it cannot start if this process may not become that user.
pub async fn run_as(
    who: Option<Identity>,
    line: &CommandLine,
    variables: &Variables<'_>,
    timeout: Duration,
) -> Result<Output, ExecError> {
    let start = |source| ExecError::Start { command: line.to_string(), source };
    let (mut child, pipe) = spawn(who, line, variables).map_err(start)?;
    let mut group = Group::of(&child);
    let mut kept = Kept::default();
    let deadline = Instant::now() + timeout;
    let status = loop {
        tokio::select! {
            status = child.wait() => break Some(status.map_err(start)?),
            () = kept.fill(&pipe) => {}
            () = tokio::time::sleep_until(deadline) => break None,
        }
    };
    let command = line.to_string();
    let Some(status) = status else {
        group.end(&mut child, &mut kept, &pipe).await;
        return Err(ExecError::TimedOut { command, timeout, output: kept.finish() });
    };
    group.forget();
    kept.take_ready(&pipe);
    let output = kept.finish();
    if status.success() { Ok(output) } else { Err(ExecError::Failed { command, status, output }) }
}

fn spawn(
    who: Option<Identity>,
    line: &CommandLine,
    variables: &Variables<'_>,
) -> std::io::Result<(tokio::process::Child, pipe::Receiver)> {
    let (reader, writer) = std::io::pipe()?;
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH_DEFAULT.to_owned());
    let mut command = line.to_command();
    command.env_clear().env("PATH", path);
    for (name, value) in variables {
        command.env(format!("ALTHING_{}", name.to_uppercase()), value);
    }
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    command.current_dir("/").process_group(0).kill_on_drop(true);
    if let Some(Identity { user, group }) = who {
        // The standard library gives up all other groups with the user.
        command.uid(user).gid(group);
    }
    let child = command.spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?))
}

/// The process group of a running command, killed when this is dropped.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    /// The command ended by itself; what it left in the background may stay.
    fn forget(&mut self) {
        self.0 = None;
    }

    /// TERM, five seconds to obey, KILL. The pipe is read meanwhile so that a command blocked in
    /// a write can end.
    async fn end(
        &mut self,
        child: &mut tokio::process::Child,
        kept: &mut Kept,
        pipe: &pipe::Receiver,
    ) {
        self.signal(Signal::TERM);
        let grace = Instant::now() + Duration::from_millis(limits::COMMAND_KILL_AFTER_MS);
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let mut leader_gone = false;
        while Instant::now() < grace && !(leader_gone && self.is_gone()) {
            tokio::select! {
                _ = child.wait(), if !leader_gone => leader_gone = true,
                () = kept.fill(pipe) => {}
                _ = poll.tick() => {}
            }
        }
        self.signal(Signal::KILL);
        // A killed process can still sit in an uninterruptible wait; do not wait with it.
        let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
        self.forget();
    }

    fn is_gone(&self) -> bool {
        self.0.is_none_or(|group| test_kill_process_group(group).is_err())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // No such group = all gone, which is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// The bounded part of a command's output.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    not_kept: u64,
    ended: bool,
}

impl Kept {
    /// Takes what comes next, after a pause if it will not be kept; after the end of the pipe,
    /// waits for ever so that a `select!` goes on with its other branches.
    async fn fill(&mut self, pipe: &pipe::Receiver) {
        if self.not_kept > 0 {
            tokio::time::sleep(Duration::from_millis(limits::COMMAND_DRAIN_PAUSE_MS)).await;
        }
        if self.ended || pipe.readable().await.is_err() {
            return std::future::pending().await;
        }
        self.take_ready(pipe);
    }

    /// Takes what is in the pipe now, at most its capacity.
    fn take_ready(&mut self, pipe: &pipe::Receiver) {
        let mut chunk = [0; 4096];
        for _ in 0..limits::COMMAND_OUTPUT_BYTES_MAX / chunk.len() {
            match pipe.try_read(&mut chunk) {
                Ok(count @ 1..) => self.keep(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => {
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn keep(&mut self, chunk: &[u8]) {
        let room = limits::COMMAND_OUTPUT_BYTES_MAX - self.bytes.len();
        let (kept, rest) = chunk.split_at(room.min(chunk.len()));
        self.bytes.extend_from_slice(kept);
        self.not_kept += rest.len() as u64;
    }

    fn finish(self) -> Output {
        let text = String::from_utf8_lossy(&self.bytes).into_owned();
        Output { text, bytes_not_kept: self.not_kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(text: &str) -> CommandLine {
        CommandLine::Shell(text.to_owned())
    }

    async fn sh(text: &str) -> Result<Output, ExecError> {
        run(&shell(text), &[("name", "x")], Duration::from_secs(20)).await
    }

    #[test]
    fn variables_are_put_in_and_quoted() {
        let variables = [("src", "/tmp/a b"), ("name", "plain")];
        let cases = [
            ("haproxy -c -f {{.src}}", "haproxy -c -f '/tmp/a b'"),
            ("x {{ src }} {{src}} {{ .name }}", "x '/tmp/a b' '/tmp/a b' plain"),
            ("docker ps --format '{{.Names}}' {{", "docker ps --format '{{.Names}}' {{"),
        ];
        for (text, expected) in cases {
            assert_eq!(shell(text).with(&variables), shell(expected));
        }
        let argv = CommandLine::Argv(vec!["cat".into(), "{{.src}}".into()]);
        let expected = CommandLine::Argv(vec!["cat".into(), "/tmp/a b".into()]);
        assert_eq!(argv.with(&variables), expected);
        assert_eq!(expected.to_string(), "cat '/tmp/a b'");
        assert_eq!(shell_quote("it's"), r"'it'\''s'");
        assert_eq!(shell_quote(""), "''");
    }

    #[tokio::test]
    async fn output_and_status_come_back() {
        let output = sh("echo out; echo err >&2; echo $ALTHING_NAME ${HOME-unset}").await.unwrap();
        assert_eq!(output.text, "out\nerr\nx unset\n");
        let error = sh("echo why; exit 3").await.unwrap_err().to_string();
        assert!(error.ends_with("ended with exit code 3\n  | why"), "{error}");
        let error = sh("seq 1000; exit 3").await.unwrap_err();
        assert!(error.to_string().contains("(960 lines before these)\n  | 961\n"), "{error}");
        let silent = error.without_output().to_string();
        assert!(silent.ends_with("exit code 3\n  | (not shown)"), "{silent}");
        let missing = CommandLine::Argv(vec!["/no/such/program".into()]);
        let error = run(&missing, &[], Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, ExecError::Start { .. }), "{error}");
    }

    #[tokio::test]
    async fn no_descriptor_is_inherited() {
        let _open = std::fs::File::open("Cargo.toml").unwrap();
        let output = sh("exec ls -l /proc/self/fd").await.unwrap();
        assert!(output.text.contains("/dev/null") && output.text.contains("pipe:"));
        assert!(!output.text.contains("Cargo.toml"), "{}", output.text);
    }

    #[tokio::test]
    async fn a_background_child_does_not_hold_the_end_back() {
        let begun = Instant::now();
        sh("sleep 10 & echo started").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(8));
    }

    #[tokio::test]
    async fn much_output_is_cut_and_does_not_block() {
        let output = sh("head -c 300000 /dev/zero | tr '\\0' x").await.unwrap();
        assert_eq!(output.text.len(), limits::COMMAND_OUTPUT_BYTES_MAX);
        let expected = 300_000 - limits::COMMAND_OUTPUT_BYTES_MAX as u64;
        assert_eq!(output.bytes_not_kept, expected);
    }

    /// `yes` writes gigabytes a second into a pipe that is read as fast.
    #[tokio::test]
    async fn a_flood_is_read_at_a_pace() {
        let error = run(&shell("yes"), &[], Duration::from_secs(1)).await.unwrap_err();
        let ExecError::TimedOut { output, .. } = error else { panic!("{error}") };
        assert!(output.bytes_not_kept > 0 && output.bytes_not_kept < 32 << 20, "{output:?}");
        assert!(output.to_string().contains("bytes more were written and not kept"));
    }

    #[tokio::test]
    async fn a_late_command_dies_with_its_group() {
        let line = shell("sleep 61 & echo $!; wait");
        let error = run(&line, &[], Duration::from_millis(300)).await.unwrap_err();
        let ExecError::TimedOut { output, .. } = error else { panic!("{error}") };
        let grandchild = output.text.trim().to_owned();
        let alive = || {
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat"));
            stat.is_ok_and(|stat| !stat.contains(") Z "))
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while alive() {
            assert!(Instant::now() < deadline, "process {grandchild} outlived its group");
            tokio::task::yield_now().await;
        }
    }
}
