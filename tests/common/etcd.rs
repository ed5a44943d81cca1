//! The real etcd with its v2 API, as a guard: started on free ports, killed when dropped.
//!
//! It keeps its data in a directory of the test, and hears nothing of the environment's settings.

use super::{clean, http, scratch, wait_until};
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// From start to the first good `/health`: an election, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One running etcd of one member, which is called `default` as althing's is.
pub(crate) struct Etcd {
    child: Child,
    home: TempDir,
    url: String,
}

impl Etcd {
    /// Starts `program` on an empty data directory and waits until it is healthy.
    #[track_caller]
    pub(crate) fn start(program: &Path) -> Self {
        let home = scratch("etcd");
        let (url, peer) = (free_url(), free_url());
        let log = File::create(home.path().join("log")).unwrap();
        let mut command = clean(program.to_owned());
        command.args(["--enable-v2", "--name=default"]);
        command.arg(format!("--data-dir={}", home.path().join("data").display()));
        command.arg(format!("--listen-client-urls={url}"));
        command.arg(format!("--advertise-client-urls={url}"));
        command.arg(format!("--listen-peer-urls={peer}"));
        command.arg(format!("--initial-advertise-peer-urls={peer}"));
        command.arg(format!("--initial-cluster=default={peer}"));
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let etcd = Self { child, home, url };
        wait_until("etcd is healthy", READY_WITHIN, || {
            let health = http::try_http("GET", &format!("{}/health", etcd.url), "");
            health.is_ok_and(|response| response.status == 200)
        });
        etcd
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "the end of etcd's log:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address nobody listened on a moment ago; etcd cannot tell the port it got.
fn free_url() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}
