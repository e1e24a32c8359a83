//! As much of HTTP/1.1 as the origin and the load need: heads, Content-Length, nothing chunked.
//!
//! Both ends are ours and the proxies under test stand between, so whatever is unexpected is an error, not a case.

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest head that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// The head of a request or a response, in the buffer it was read into.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    text: &'a [u8],
}

/// A response that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

// === impl Head ===

impl<'a> Head<'a> {
    /// The head at the front of a buffer, when it is there in whole.
    pub fn find(buffer: &'a [u8]) -> Option<Self> {
        let end = memmem::find(buffer, b"\r\n\r\n")? + 4;
        Some(Self { text: &buffer[..end] })
    }

    /// Its length in bytes, the empty line included.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// The words of a request line: method and target.
    pub fn request_line(&self) -> (&'a [u8], &'a [u8]) {
        let mut words = self.lines().next().unwrap_or_default().split(|byte| *byte == b' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// The status of a response.
    pub fn status(&self) -> Result<u16> {
        let line = self.lines().next().unwrap_or_default();
        let code = line.get(9..12).filter(|_| line.starts_with(b"HTTP/1."));
        let code = code.and_then(|code| str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
        code.with_context(|| format!("not a status line: {:?}", String::from_utf8_lossy(line)))
    }

    /// The value of the first field of that name.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_at_checked(name.len())?;
            (value.first() == Some(&b':') && found.eq_ignore_ascii_case(name.as_bytes()))
                .then(|| value[1..].trim_ascii())
        })
    }

    /// Content-Length; nothing where there is none.
    pub fn content_length(&self) -> Result<Option<usize>> {
        let Some(value) = self.field("content-length") else { return Ok(None) };
        let length = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        length.map(Some).context("a Content-Length that is no number")
    }

    fn lines(&self) -> impl Iterator<Item = &'a [u8]> {
        self.text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// Reads one response, its length told by Content-Length.
pub async fn read_response(stream: &mut (impl AsyncRead + Unpin)) -> Result<Response> {
    let mut buffer = Vec::with_capacity(4096);
    let (status, start, length) = loop {
        if let Some(head) = Head::find(&buffer) {
            let length = head.content_length()?;
            let length =
                length.or((head.status()? == 101).then_some(0)).context("a response without Content-Length")?;
            break (head.status()?, head.len(), length);
        }
        ensure!(buffer.len() < MAX_HEAD, "a head of more than {MAX_HEAD} bytes");
        if stream.read_buf(&mut buffer).await? == 0 {
            bail!("closed after {} bytes of a head", buffer.len());
        }
    };
    while buffer.len() < start + length {
        if stream.read_buf(&mut buffer).await? == 0 {
            bail!("closed after {} of {length} bytes of a body", buffer.len() - start);
        }
    }
    ensure!(buffer.len() == start + length, "{} bytes more than one response", buffer.len() - start - length);
    Ok(Response { status, body: buffer.split_off(start) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_found_when_it_is_whole() {
        assert!(Head::find(b"GET / HTTP/1.1\r\nHost: a\r\n").is_none());
        let head = Head::find(b"POST /x HTTP/1.1\r\nHost: a\r\ncontent-LENGTH:  3\r\n\r\nabc").unwrap();
        assert_eq!(head.request_line(), (&b"POST"[..], &b"/x"[..]));
        assert_eq!((head.content_length().unwrap(), head.len()), (Some(3), 49));
        assert_eq!(head.field("Hos"), None);
        assert!(head.status().is_err());
    }

    #[tokio::test]
    async fn a_response_is_read_to_its_end_and_no_further() {
        let mut whole = &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"[..];
        assert_eq!(read_response(&mut whole).await.unwrap(), Response { status: 200, body: b"ab".to_vec() });
        let mut short = &b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"[..];
        assert!(read_response(&mut short).await.unwrap_err().to_string().contains("2 of 3"));
        let mut long = &b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab"[..];
        assert!(read_response(&mut long).await.unwrap_err().to_string().contains("1 bytes more"));
    }
}
