//! A client of the agent's API by plain HTTP, over any stream.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Longer than anything takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Both directions of a connection.
pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An answer whose body has not been read yet.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: BufReader<Box<dyn Stream>>,
    /// The length of a body that is not in chunks.
    length: Option<usize>,
    /// Of the chunk that is being read.
    left: usize,
    ended: bool,
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends a request and reads the head of the answer.
pub(crate) fn send(stream: impl Stream + 'static, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream: Box<dyn Stream> = Box::new(stream);
    let mut request = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    head(stream)
}

/// Reads the head of an answer.
pub(crate) fn head(stream: Box<dyn Stream>) -> Answer {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let code = line.split(' ').nth(1).unwrap_or_else(|| panic!("no status line: {line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let of = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
    let length = of("content-length").map(|length| length.parse().unwrap());
    Answer { code, reader, length, left: 0, ended: false, headers }
}

impl Answer {
    pub(crate) fn text(mut self) -> String {
        let mut body = Vec::new();
        match self.length {
            Some(length) => {
                body = vec![0; length];
                self.reader.read_exact(&mut body).unwrap();
            }
            None => while self.chunk(&mut body).unwrap() {},
        }
        String::from_utf8(body).unwrap()
    }

    pub(crate) fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Reads on in what is here of a chunk. False at the end of the body; an error when the connection ends before.
    fn chunk(&mut self, body: &mut Vec<u8>) -> std::io::Result<bool> {
        if self.left == 0 {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16);
            self.left = size.map_err(|_| std::io::Error::other(format!("cut off: {line:?} is no length of a chunk")))?;
            if self.left == 0 {
                self.ended = true;
                return Ok(false);
            }
        }
        let here = self.reader.fill_buf()?;
        if here.is_empty() {
            return Err(std::io::Error::other("cut off in a chunk"));
        }
        let taken = here.len().min(self.left);
        body.extend_from_slice(&here[..taken]);
        self.reader.consume(taken);
        self.left -= taken;
        if self.left == 0 {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(true)
    }

    /// The frames of a stream, one after the other.
    pub(crate) fn frames(self) -> Frames {
        assert_eq!(self.code, 200);
        Frames { answer: self, waiting: Vec::new() }
    }
}

/// Frames as they come.
pub(crate) struct Frames {
    answer: Answer,
    waiting: Vec<u8>,
}

impl Frames {
    /// The next frame; `None` at the end of the body; an error when the connection is cut.
    pub(crate) fn next(&mut self) -> std::io::Result<Option<Value>> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))));
            }
            if !self.answer.chunk(&mut self.waiting)? {
                assert!(self.waiting.is_empty(), "the last frame has no newline");
                return Ok(None);
            }
        }
    }

    /// Reads to the end of the body.
    pub(crate) fn rest(mut self) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().unwrap() {
            frames.push(frame);
        }
        frames
    }

    /// Reads until a frame passes; all that was read, that one last.
    pub(crate) fn until(&mut self, what: &str, test: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().unwrap().unwrap_or_else(|| panic!("the stream ended before {what}: {frames:?}"));
            let found = test(&frame);
            frames.push(frame);
            if found {
                return frames;
            }
        }
    }
}

/// The lines of items of a type.
pub(crate) fn items<'a>(frames: &'a [Value], kind: &str) -> Vec<&'a Value> {
    frames.iter().map(|frame| &frame["line"]).filter(|line| line["type"] == kind).collect()
}

/// Drops of a stream that its ledger accounts for, and those it was told it lost.
pub(crate) fn accounted(frames: &[Value]) -> u64 {
    let ledger = frames.iter().find(|frame| frame["frame"] == "ledger").expect("a ledger");
    assert_eq!(ledger["line"]["balanced"], true, "{ledger}");
    let number = |name: &str| ledger["line"][name].as_u64().unwrap();
    number("records") + number("counted") + lost(frames)
}

pub(crate) fn lost(frames: &[Value]) -> u64 {
    frames.iter().filter(|frame| frame["frame"] == "lost").map(|frame| frame["count"].as_u64().unwrap()).sum()
}
