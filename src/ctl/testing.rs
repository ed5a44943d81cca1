//! A server that says what a test tells it to, and verbs run against it.

use crate::base::report::Report;
use crate::base::url::HttpUrl;
use crate::ctl::output::Out;
use crate::ctl::{Cli, carry_out};
use clap::Parser;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers requests in turn, one a connection.
pub(crate) struct Server {
    pub(crate) url: HttpUrl,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// The requests so far, head and body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Serves `answers`, status and body, then stops listening.
pub(crate) async fn serve(answers: Vec<(u16, &'static str)>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = HttpUrl::of(listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        for (status, body) in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = read_request(&mut socket).await;
            log.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 {status} X\r\nX-Etcd-Index: 6\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    Server { url, seen }
}

async fn read_request(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = socket.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if count == 0 || body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            return text;
        }
    }
}

/// Runs `althing WORDS --endpoint URL` and gives back what it printed into a pipe.
pub(crate) async fn run(url: &HttpUrl, words: &[&str]) -> Result<String, Report> {
    let url = url.to_string();
    let words = [&["althing"], words, &["--endpoint", &url]].concat();
    let cli = Cli::try_parse_from(words).unwrap();
    let mut printed = Vec::new();
    carry_out(&cli.verb, &mut Out::buffer(&mut printed)).await?;
    Ok(String::from_utf8(printed).unwrap())
}
