//! The few HTTP requests of the mini-program.

use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Address, Error};

/// An answer longer than this is none of ours.
const ANSWER_LIMIT_BYTES: u64 = 4 * 1024 * 1024;

/// Posts a form, as the mini-program does, and returns the JSON of a 200.
///
/// # Errors
/// [`Error::Connect`], [`Error::Timeout`], [`Error::Answer`] and, for every other status, [`Error::Refused`] with the text
/// of the answer's `error` field.
pub async fn post_form(address: &Address, path: &str, form: &[(&str, &str)], limit: Duration) -> Result<Value, Error> {
    let mut body = String::new();
    for (name, value) in form {
        if !body.is_empty() {
            body.push('&');
        }
        encode(&mut body, name);
        body.push('=');
        encode(&mut body, value);
    }
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let connect = |source| Error::Connect { address: address.to_string(), source };
    let exchange = async {
        let mut stream = TcpStream::connect((address.host(), address.port())).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        (&mut stream).take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    let answer = match tokio::time::timeout(limit, exchange).await {
        Ok(answer) => answer.map_err(connect)?,
        Err(_) => return Err(connect(std::io::ErrorKind::TimedOut.into())),
    };
    let answered = || Error::Answer { address: address.to_string(), path: path.to_owned() };
    let (status, body) = split(&answer).ok_or_else(answered)?;
    let json = serde_json::from_slice::<Value>(&body);
    if status == 200 {
        return json.map_err(|_| answered());
    }
    let reason = match &json {
        Ok(json) => json["error"].as_str().unwrap_or("no reason given").to_owned(),
        Err(_) => String::from_utf8_lossy(&body).chars().take(120).collect(),
    };
    Err(Error::Refused { address: address.to_string(), path: path.to_owned(), status, reason })
}

fn encode(out: &mut String, text: &str) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// Status and body of an answer that ended with its connection.
fn split(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let body = &answer[end + 4..];
    let status = head.lines().next()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let chunked = head.lines().any(|line| {
        line.split_once(':').is_some_and(|(name, value)| {
            name.eq_ignore_ascii_case("transfer-encoding") && value.trim().eq_ignore_ascii_case("chunked")
        })
    });
    Some((status, if chunked { unchunk(body)? } else { body.to_vec() }))
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::with_capacity(body.len());
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&body[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        let from = end + 2;
        whole.extend_from_slice(body.get(from..from.checked_add(size)?)?);
        body = body.get(from + size + 2..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(split(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}"), Some((200, b"{}".to_vec())));
        let chunked =
            b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{\"\r\n3;x\r\na\":\r\n2\r\n1}\r\n0\r\n\r\n";
        assert_eq!(split(chunked), Some((404, b"{\"a\":1}".to_vec())));
        for bad in [&b"HTTP/1.1 200 OK\r\n"[..], b"\r\n\r\n", b"HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(split(bad), None);
        }
        let mut form = String::new();
        encode(&mut form, "a b&ü-_.");
        assert_eq!(form, "a%20b%26%C3%BC-_.");
    }
}
