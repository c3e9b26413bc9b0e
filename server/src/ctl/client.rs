//! Speaks HTTP to one broker through its control socket: one request, one connection.
//!
//! The requests are HTTP/1.0, so a reply ends where its connection ends and is never in chunks.

use super::failure::{EX_SOFTWARE, EX_UNAVAILABLE, Failure};
use crate::control_socket;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a reply's head at most.
const HEAD_SIZE_MAX: usize = 64 << 10;

/// A broker that was found.
#[derive(Debug)]
pub(crate) struct Client {
    data_dir: PathBuf,
    timeout: Option<Duration>,
    /// A dry run goes no further.
    refuses_requests: Cell<bool>,
    /// A dry run asks, and changes nothing.
    refuses_changes: bool,
}

/// What the broker answered.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// Whether the status is a good one.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::error(EX_SOFTWARE, format!("unreadable reply: {error}")))
    }

    /// The reason of a refusal.
    pub(crate) fn reason(&self) -> String {
        let value: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        match value["reason"].as_str() {
            Some(reason) => reason.to_owned(),
            None if value["reason"].is_null() => {
                format!("the broker answered with status {}", self.status)
            }
            None => value["reason"].to_string(),
        }
    }

    /// The refusal as a failure of the command.
    pub(crate) fn failure(&self) -> Failure {
        Failure::error(EX_UNAVAILABLE, self.reason())
    }
}

impl Client {
    /// The broker of a data directory.
    pub(crate) fn new(data_dir: PathBuf, timeout_s: Option<f64>) -> Client {
        let timeout = timeout_s.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.001, 1e9)));
        Client { data_dir, timeout, refuses_requests: Cell::new(false), refuses_changes: false }
    }

    /// The same broker, which will not be asked to change anything.
    pub(crate) fn without_changes(self) -> Client {
        Client { refuses_changes: true, ..self }
    }

    /// From now on every request ends the command: what would follow is not to be done.
    pub(crate) fn refuse_requests(&self) {
        self.refuses_requests.set(true);
    }

    /// Its data directory.
    pub(crate) fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// Asks for a path under `/api`, which must be there.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        let reply = self.request("GET", path, None)?;
        if reply.is_success() { reply.json() } else { Err(reply.failure()) }
    }

    /// Asks for a path that may be missing.
    pub(crate) fn find(&self, path: &str) -> Result<Option<Value>, Failure> {
        let reply = self.request("GET", path, None)?;
        match reply.status {
            404 => Ok(None),
            _ if reply.is_success() => reply.json().map(Some),
            _ => Err(reply.failure()),
        }
    }

    /// Puts something where a path says.
    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<(), Failure> {
        self.change("PUT", path, Some(body))
    }

    /// Asks for something to be done.
    pub(crate) fn post(&self, path: &str, body: Option<&Value>) -> Result<(), Failure> {
        self.change("POST", path, body)
    }

    fn change(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(), Failure> {
        let reply = self.request(method, path, body)?;
        if reply.is_success() { Ok(()) } else { Err(reply.failure()) }
    }

    /// Deletes what a path names; says whether it was there.
    pub(crate) fn delete(&self, path: &str) -> Result<bool, Failure> {
        let reply = self.request("DELETE", path, None)?;
        match reply.status {
            404 => Ok(false),
            _ if reply.is_success() => Ok(true),
            _ => Err(reply.failure()),
        }
    }

    /// Sends a request to a path under `/api`.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        self.request_with(method, path, &[], body)
    }

    /// The same with further headers.
    pub(crate) fn request_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, Failure> {
        if self.refuses_requests.get() || (self.refuses_changes && method != "GET") {
            return Err(Failure::DryRun);
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut request = format!(
            "{method} /api{path} HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\n\
             content-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            let value = value.replace(['\r', '\n'], " ");
            request.extend([name, ": ", &value, "\r\n"]);
        }
        request.push_str("\r\n");
        request.push_str(&body);
        match self.exchange(request.as_bytes()) {
            Ok(reply) => parse_reply(&reply).ok_or_else(|| {
                Failure::error(EX_UNAVAILABLE, "the broker closed the connection without a reply")
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let timeout_ms = self.timeout.unwrap_or_default().as_millis();
                Err(Failure::TimedOut { timeout_ms })
            }
            Err(error) => {
                Err(Failure::NodeDown { tried: format!("{}: {error}", self.data_dir.display()) })
            }
        }
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = control_socket::connect(&self.data_dir)?;
        stream.set_read_timeout(self.timeout)?;
        stream.set_write_timeout(self.timeout)?;
        stream.write_all(request)?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        Ok(reply)
    }
}

fn parse_reply(bytes: &[u8]) -> Option<Reply> {
    let searched = &bytes[..bytes.len().min(HEAD_SIZE_MAX)];
    let end = searched.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Reply { status, body: bytes[end + 4..].to_vec() })
}

/// A name as a segment of a path.
pub(crate) fn segment(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// Goal: a request is well formed and its reply understood, whatever is in names and values.
    #[test]
    fn a_request_goes_out_and_its_reply_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let listener = control_socket::bind(dir.path()).unwrap();
        let broker = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = vec![0; 4096];
            let size = stream.read(&mut request).unwrap();
            stream
                .write_all(b"HTTP/1.0 400 Bad Request\r\nx: y\r\n\r\n{\"reason\":\"no\"}")
                .unwrap();
            String::from_utf8(request[..size].to_vec()).unwrap()
        });
        let client = Client::new(dir.path().to_owned(), Some(10.0));
        let path = format!("/queues/{}", segment("a/b c"));
        let headers = [("x-reason", "one\r\ntwo")];
        let body = serde_json::json!({"a": 1});
        let reply = client.request_with("PUT", &path, &headers, Some(&body)).unwrap();
        assert_eq!((reply.status, reply.reason().as_str()), (400, "no"));
        assert_eq!(
            broker.join().unwrap(),
            "PUT /api/queues/a%2Fb%20c HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\n\
             content-length: 7\r\nx-reason: one  two\r\n\r\n{\"a\":1}"
        );
    }

    #[test]
    fn without_a_broker_the_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let client = Client::new(dir.path().to_owned(), None);
        match client.get("/overview") {
            Err(Failure::NodeDown { tried }) => {
                assert!(tried.contains(&dir.path().display().to_string()), "{tried}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn broken_replies_are_refused() {
        assert!(parse_reply(b"").is_none());
        assert!(parse_reply(b"HTTP/1.0 200 OK\r\n").is_none());
        assert!(parse_reply(b"nonsense\r\n\r\n").is_none());
        assert_eq!(parse_reply(b"HTTP/1.0 204 No\r\n\r\n").unwrap().status, 204);
    }
}
