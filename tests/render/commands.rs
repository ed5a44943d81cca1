//! Commands that hang, print without end, or leave somebody behind: each is nobody else's trouble.

use crate::common::{Bench, Store, error, status, until, until_file};
use std::path::Path;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_hanging_check_dies_with_its_group_and_holds_up_nobody() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.template("slow.tera", "x");
    let check = format!("sleep 77 & echo $! > {}; wait", pid.display());
    bench.resource("slow", &format!("check_cmd = \"{check}\"\ncheck_timeout = \"1s\""));
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until("the check hangs", || pid.exists()).await;
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    until("the check is given up", || error(&renderer, "slow").contains("did not end within 1 s"))
        .await;
    let first = std::fs::read_to_string(&pid).unwrap();
    until("its child is gone", || is_gone(first.trim())).await;
    assert!(!bench.out("slow").exists());
    renderer.shutdown().await;
    let last = std::fs::read_to_string(&pid).unwrap();
    until("nothing outlives the renderer", || is_gone(last.trim())).await;
}

fn is_gone(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[tokio::test]
async fn shutdown_kills_a_running_reload_and_keeps_the_debt() {
    let bench = Bench::new();
    let pid = bench.path("pid");
    bench.template("a.tera", "x");
    bench.resource("a", &format!("reload_cmd = \"echo $$ > {}; exec sleep 88\"", pid.display()));
    let store = Store::new();
    let renderer = bench.start(&store);
    until("the reload runs", || {
        std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))
    })
    .await;
    assert!(status(&renderer, "a").owed_since.is_some());
    let begun = Instant::now();
    renderer.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(3));
    let process = std::fs::read_to_string(&pid).unwrap();
    until("the reload is dead", || is_gone(process.trim())).await;
    bench.resource("a", "reload_cmd = \"true\"");
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    assert_eq!(status(&renderer, "a").reloads, 1);
    renderer.shutdown().await;
}

#[tokio::test]
async fn a_hanging_reload_dies_with_its_group_and_is_owed() {
    let bench = Bench::new();
    let (pids, patient) = (bench.path("pids"), bench.path("patient"));
    bench.template("a.tera", "{{ getv(key='/v') }}");
    // TERM is not obeyed: KILL has to follow.
    let reload = format!(
        "test -e {1} || {{ trap '' TERM; sleep 79 & echo $! >> {0}; wait; }}",
        pids.display(),
        patient.display()
    );
    bench.resource("a", &format!("reload_cmd = \"{reload}\"\nreload_timeout = \"500ms\""));
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "reload_cmd = \"true\"");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until("the reload hangs", || pids.exists()).await;
    assert_eq!(bench.read("a"), "1");
    let begun = Instant::now();
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    until("the others are told", || status(&renderer, "good").reloads == 2).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "held up for {:?}", begun.elapsed());
    until("it is given up", || error(&renderer, "a").contains("did not end within 0.5 s")).await;
    assert!(status(&renderer, "a").owed_since.is_some());
    let first = std::fs::read_to_string(&pids).unwrap();
    until("its child is gone", || is_gone(first.lines().next().unwrap())).await;
    std::fs::write(&patient, "").unwrap();
    until("it is tried again", || status(&renderer, "a").ok).await;
    assert_eq!(bench.read("a"), "2");
    renderer.shutdown().await;
}

/// confd waited for the end of the pipe, and with it for whoever had inherited it.
#[tokio::test]
async fn a_child_that_keeps_the_pipe_open_holds_nothing_up() {
    let bench = Bench::new();
    let pids = bench.path("pids");
    let stay = format!("sleep 83 & echo $! >> {}", pids.display());
    bench.template("a.tera", "{{ getv(key='/v') }}");
    bench.resource("a", &format!("check_cmd = \"{stay}\"\nreload_cmd = \"{stay}\""));
    let store = Store::with(&[("/v", "1")]);
    let begun = Instant::now();
    let renderer = bench.start(&store);
    renderer.first_pass().await;
    for value in ["2", "3"] {
        store.put("/v", value);
        until_file(&bench, "a", value).await;
    }
    let reloaded = || status(&renderer, "a").reloads == 3 && status(&renderer, "a").ok;
    until("it is reloaded", reloaded).await;
    assert!(begun.elapsed() < Duration::from_secs(40), "waited for a child");
    renderer.shutdown().await;
    let left = std::fs::read_to_string(&pids).unwrap();
    assert_eq!(left.lines().count(), 6);
    assert!(!is_gone(left.lines().next().unwrap()), "what a command left in the background stays");
    for pid in left.lines() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_output_is_cut_and_stopped() {
    let bench = Bench::new();
    bench.template("a.tera", "x");
    bench.resource("a", "check_cmd = \"yes flood\"\ncheck_timeout = \"1s\"");
    bench.template("b.tera", "x");
    bench.resource("b", "check_cmd = \"cat; head -c 3000000 /dev/zero | tr '\\\\0' x\"");
    bench.template("good.tera", "{{ getv(key='/v') }}");
    bench.resource("good", "");
    let store = Store::with(&[("/v", "1")]);
    let renderer = bench.start(&store);
    until_file(&bench, "good", "1").await;
    until_file(&bench, "b", "x").await;
    store.put("/v", "2");
    until_file(&bench, "good", "2").await;
    until("the flood is over", || error(&renderer, "a").contains("did not end within 1 s")).await;
    let told = error(&renderer, "a");
    assert!(told.contains("lines before these") && told.contains("| flood"), "{told}");
    let more = told.split_once(" bytes more were written").unwrap().0.rsplit_once('(').unwrap().1;
    assert!(more.parse::<u64>().unwrap() < 64 << 20, "{more} bytes were read in seven seconds");
    assert!(told.len() < 2_000, "{} bytes are too many for an error", told.len());
    renderer.shutdown().await;
}

#[tokio::test]
async fn one_command_never_runs_twice_at_once() {
    let bench = Bench::new();
    let (lock, overlap) = (bench.path("lock"), bench.path("overlap"));
    let reload = format!(
        "mkdir {0} || echo >> {1}; sleep 0.2; rmdir {0}",
        lock.display(),
        overlap.display()
    );
    for name in ["a", "b", "c"] {
        bench.template(&format!("{name}.tera"), name);
        bench.resource(name, &format!("reload_cmd = \"{reload}\""));
    }
    let renderer = bench.start(&Store::new());
    renderer.first_pass().await;
    assert!(renderer.status().iter().all(|status| status.reloads == 1), "{:?}", renderer.status());
    assert!(!overlap.exists());
    renderer.shutdown().await;
}

#[tokio::test]
async fn failed_checks_are_tried_at_growing_distances() {
    let bench = Bench::new();
    let times = bench.path("times");
    bench.template("a.tera", "x");
    let check = format!("date +%s%N >> {}; exit 1", times.display());
    bench.resource("a", &format!("check_cmd = \"{check}\""));
    let renderer = bench.start(&Store::new());
    let tries = || std::fs::read_to_string(&times).unwrap_or_default();
    until("it was tried six times", || tries().lines().count() == 6).await;
    renderer.shutdown().await;
    let times: Vec<u64> = tries().lines().map(|line| line.parse().unwrap()).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    // 50 ms that double, give or take a quarter: the fifth is 600 ms at least.
    assert!(pauses[4] >= 600 && pauses[4] > pauses[0], "{pauses:?}");
}
