//! What the keys of a resource mean, for `docs/reference/resources.md`.
//!
//! Invariant: there is one word for each row of `draft`, in the same order, and its example is a
//! good one; tests hold both.

/// A key of a resource.
#[derive(Debug)]
pub struct Key {
    /// What it is called.
    pub key: &'static str,
    /// A value, as one would write it.
    pub example: &'static str,
    /// What it means, and what holds without it.
    pub doc: &'static str,
}

const fn key(key: &'static str, example: &'static str, doc: &'static str) -> Key {
    Key { key, example, doc }
}

/// Every key.
pub static KEYS: &[Key] = &[
    key("src", "\"web.tera\"", "the template, by its path below `templates/`; required"),
    key(
        "dest",
        "\"/etc/web.cfg\"",
        "the whole path of the file; required. Not inside the daemon's own directories, and inside `allowed_dirs` if that is set",
    ),
    key("engine", "\"tera\"", "the template language, where the name of `src` does not tell it"),
    key("prefix", "\"/prod\"", "keys are relative to it; the template sees them without it"),
    key(
        "keys",
        "[\"/services\"]",
        "what the template may read, and whose changes render it; without them all below the prefix, and what it has read",
    ),
    key(
        "read_keys",
        "[\"/defaults\"]",
        "what it may read as well; changes of these render nothing",
    ),
    key("required", "[\"/domain\"]", "keys without which the old file stays"),
    key("owner", "\"haproxy\"", "user of the file; without it as the old file has it"),
    key("uid", "115", "the same by number"),
    key("group", "\"haproxy\"", "group of the file; without it as the old file has it"),
    key("gid", "118", "the same by number"),
    key(
        "mode",
        "\"0640\"",
        "permission bits, octal; without it as the old file has them, 0640 for a new one",
    ),
    key("make_dirs", "true", "make the directories above `dest` that are missing"),
    key(
        "follow_symlinks",
        "true",
        "a `dest` that is a link means the file it leads to; without it a link is refused",
    ),
    key(
        "check_cmd",
        "\"haproxy -c -f {{.src}}\"",
        "must succeed on the staged file before it is put in place",
    ),
    key("check_timeout", "\"30s\"", "time it has"),
    key(
        "reload_cmd",
        "[\"systemctl\", \"reload\", \"haproxy\"]",
        "tells the service; owed until it succeeds",
    ),
    key("reload_timeout", "\"60s\"", "time it has, and `verify_cmd`"),
    key(
        "verify_cmd",
        "\"curl -fsS http://127.0.0.1/healthz\"",
        "must succeed after the reload, else the reload is owed",
    ),
    key(
        "on_failure",
        "\"rollback\"",
        "what follows a reload or verification that fails: the old file comes back (`rollback`), or the new one stays (`keep`, the default)",
    ),
    key(
        "output_format",
        "\"json\"",
        "`json`, `yaml` or `toml`: the file must parse before it is put in place",
    ),
    key(
        "user",
        "\"haproxy\"",
        "whom the commands run as, with its first group only; without it the daemon's user. Needs \
         a daemon that runs as root",
    ),
    key("shell", "false", "whether a command in one string is run by `/bin/sh`; without it `true`"),
    key(
        "wait",
        "{ min = \"200ms\", max = \"5s\" }",
        "render once keys have not changed for `min`, and at the latest `max` after the first change",
    ),
    key(
        "min_reload_interval",
        "\"10s\"",
        "shortest time between two reloads; a change meanwhile waits, file and all",
    ),
    key(
        "splay",
        "\"5s\"",
        "a change waits a part of this time, another on each host, so that not all reload at once",
    ),
    key(
        "window",
        "\"Mon-Fri 06:00-20:00 +02:00\"",
        "hours in which the file may be replaced and its service told; UTC unless an offset is there",
    ),
    key("sensitive", "true", "the content is not shown, in no log, status or plan"),
    key("backup", "20", "earlier versions to keep below the data directory; without it none"),
    key("trim_blocks", "true", "a template line that holds only a tag leaves no empty line behind"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn examples_are_good_resources() {
        for Key { key, example, .. } in KEYS {
            let others = ["src = \"a.tera\"", "dest = \"/a\"", "reload_cmd = [\"true\"]"];
            let others = others.into_iter().filter(|line| !line.starts_with(key));
            let lines: Vec<&str> = others.collect();
            let text = format!("[template]\n{}\n{key} = {example}\n", lines.join("\n"));
            let read = crate::render::resource::parse(Path::new("a.toml"), "a", &text);
            assert!(read.is_ok(), "{text}: {read:?}");
        }
    }
}
