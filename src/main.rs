//! Entry point: only the render worker so far.
fn main() {
    if std::env::args_os().nth(1).is_some_and(|word| word == "render-worker") {
        #[expect(clippy::disallowed_methods, reason = "main ends the process")]
        std::process::exit(althing::render::worker_main());
    }
}
