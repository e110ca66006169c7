//! Where the server is.

use std::fmt;
use std::str::FromStr;

use super::Error;

/// Host and port of a server, as the firmware has them compiled in: plain TCP, no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// The host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `http://host:port`, `ws://host:port` or `host:port`, with or without a final slash. The port is 8000, the
    /// firmware's, where none is given.
    fn from_str(url: &str) -> Result<Self, Error> {
        let failed = || Error::Url { url: url.to_owned() };
        let rest = match url.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some(_) => return Err(failed()),
            None => url,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, after)) => (host, Some(after.strip_prefix(':').ok_or_else(failed)?)),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(8000), |port| port.parse().map_err(|_| failed()))?;
        if host.is_empty() || host.contains(['/', '?', '#', '@', ' ']) {
            return Err(failed());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        for (url, shown) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000"),
            ("ws://localhost:9/", "localhost:9"),
            ("192.168.1.5", "192.168.1.5:8000"),
            ("[::1]:81", "[::1]:81"),
            ("http://[::1]", "[::1]:8000"),
        ] {
            assert_eq!(url.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["https://a:1", "", ":80", "a:x", "http://a:80/b", "a:99999", "wss://a"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
