//! A file system that does not answer is the trouble of the one resource that needs it.
//!
//! A template that is a FIFO plays it: opening it waits in the kernel until somebody writes.

use crate::common::{Bench, Store, error, status, until, until_file};
use althing::render::{Step, Waiting};
use std::time::{Duration, Instant, SystemTime};

fn fifo(bench: &Bench, name: &str) {
    let path = bench.path("confdir/templates").join(name);
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

#[tokio::test]
async fn a_resource_that_hangs_is_told_and_holds_up_no_other() {
    let bench = Bench::new();
    fifo(&bench, "slow.tera");
    bench.resource("slow", "");
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "");
    let store = Store::with(&[("/v", "1")]);
    let begun = SystemTime::now();
    let renderer = bench.start(&store);
    until_file(&bench, "good", "1").await;
    until("it hangs", || status(&renderer, "slow").waiting == Waiting::End(Step::Disk)).await;
    assert!(status(&renderer, "slow").since.is_some_and(|since| since >= begun));

    // The task that hangs can be neither replaced nor waited for.
    bench.resource("slow", "mode = \"0600\"");
    let (asked, pulse) = (Instant::now(), renderer.pulse());
    let answers = pulse.answers();
    renderer.reload_all().await;
    pulse.ask();
    until("the renderer shows life", || pulse.answers() != answers).await;
    assert!(asked.elapsed() < Duration::from_secs(15), "held up for {:?}", asked.elapsed());
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    until("it is told", || error(&renderer, "slow").contains("has not answered for 1")).await;
    assert!(!status(&renderer, "slow").ok);

    let path = bench.path("confdir/templates/slow.tera");
    let answer = std::fs::File::options().write(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    bench.template("slow.tera", "there");
    drop(answer);
    until_file(&bench, "slow", "there").await;
    until("it is well", || status(&renderer, "slow").ok).await;
    renderer.shutdown().await;
}
