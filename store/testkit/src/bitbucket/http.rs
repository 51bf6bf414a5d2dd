//! Just enough HTTP/1.1 for a loopback server: requests with a length, answers, connections that stay open.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Longest head and longest body that are read, bytes.
const REQUEST_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    pub closes: bool,
}

impl Request {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a parameter of the query, as it stands there.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Reads the next request; None when the other side is done.
    pub fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let (request, body_from, length) = loop {
            if let Some(parsed) = parse(&bytes)? {
                break parsed;
            }
            if bytes.len() > REQUEST_BYTES_MAX || !more(stream, &mut bytes)? {
                return Ok(None);
            }
        };
        while bytes.len() < body_from + length.min(REQUEST_BYTES_MAX) {
            if !more(stream, &mut bytes)? {
                return Ok(None);
            }
        }
        Ok(Some(request))
    }
}

fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    bytes.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let end = match parsed.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(end) => end,
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or("").into(),
        path: path.into(),
        query: query.into(),
        ..Request::default()
    };
    for header in parsed.headers.iter() {
        let value = String::from_utf8_lossy(header.value).into_owned();
        request.headers.push((header.name.into(), value));
    }
    request.closes =
        request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Some((request, end, length)))
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn write(&self, stream: &mut TcpStream) -> io::Result<()> {
        let login = match self.status {
            401 => "WWW-Authenticate: Basic realm=\"Atlassian Bitbucket\"\r\n",
            _ => "",
        };
        let head = format!(
            "HTTP/1.1 {} Simulated\r\nContent-Type: application/json;charset=UTF-8\r\n{login}Content-Length: {}\r\n\r\n",
            self.status,
            self.body.len()
        );
        stream.write_all(&[head.as_bytes(), self.body.as_bytes()].concat())
    }
}
