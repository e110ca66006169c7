//! Webhooks: a signed POST to an address that a user or an admin gave.
//!
//! Signed as the Standard Webhooks specification has it, so that its libraries check it: `webhook-id` (the notification's
//! id: the receiver drops repeats by it), `webhook-timestamp` (s since 1970 UTC), `webhook-signature` = `v1,` and the base64
//! of HMAC-SHA256 over `id.timestamp.body`, keyed with the bytes behind `whsec_`.
//!
//! The address is a stranger's word: it must be http or https, it may not lead into private networks or this machine
//! (checked for what the name resolves to, at each connection), no redirect is followed, and of the answer only the status
//! is looked at.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use sha2::Sha256;
use url::{Host, Url};

use super::{Error, Options};

/// The longest address, in bytes.
const URL_LIMIT_BYTES: usize = 2000;
/// What a secret begins with.
const SECRET_PREFIX: &str = "whsec_";

/// A fresh secret from random bytes.
pub(super) fn secret(random: [u8; 32]) -> String {
    format!("{SECRET_PREFIX}{}", BASE64.encode(random))
}

/// The value of `webhook-signature`.
pub(super) fn signature(secret: &str, id: &str, timestamp_s: i64, body: &str) -> Option<String> {
    let key = BASE64.decode(secret.strip_prefix(SECRET_PREFIX)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp_s}.{body}").as_bytes());
    Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
}

/// True if somebody else's machine is there, and not one of ours or of the operator's network.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let reserved = a >= 240 || a == 0 || (a == 198 && (b == 18 || b == 19)) || (a == 192 && b == 0);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast() || shared || reserved)
        }
        IpAddr::V6(v6) => {
            let translated = matches!(v6.segments(), [0x64, 0xff9b, ..] | [0x2002, ..] | [0x2001, 0, ..]);
            !(v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                || v6.is_multicast()
                || translated)
        }
    }
}

/// An address that may be called, as far as its text says.
pub(super) fn check(url: &str, allow_private: bool) -> Result<(), Error> {
    let parsed = Url::parse(url).ok().filter(|_| url.len() <= URL_LIMIT_BYTES).ok_or(Error::InvalidUrl)?;
    let plain =
        matches!(parsed.scheme(), "http" | "https") && parsed.username().is_empty() && parsed.password().is_none();
    let public = match parsed.host() {
        None => false,
        Some(Host::Domain(_)) => true,
        Some(Host::Ipv4(v4)) => allow_private || is_public(v4.into()),
        Some(Host::Ipv6(v6)) => allow_private || is_public(v6.into()),
    };
    if plain && public { Ok(()) } else { Err(Error::InvalidUrl) }
}

/// Resolves names and leaves out what may not be called: the check counts for the very address that is connected to.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.filter(|found| is_public(found.ip())).collect();
            if found.is_empty() {
                return Err("the name leads to no public address".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The client for all webhooks.
pub(super) fn client(options: &Options) -> Result<reqwest::Client, Error> {
    let builder = reqwest::Client::builder()
        .timeout(options.webhook_timeout)
        .redirect(Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(1);
    let builder = if options.webhooks_allow_private { builder } else { builder.dns_resolver(Arc::new(PublicOnly)) };
    builder.user_agent(concat!("volant/", env!("CARGO_PKG_VERSION"))).build().map_err(Error::Client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_specification() {
        // The example of the Standard Webhooks specification.
        let signature = signature(
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            r#"{"test": 2432232314}"#,
        );
        assert_eq!(signature.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn addresses_that_lead_inwards_are_refused() {
        for url in [
            "http://127.0.0.1/",
            "http://10.0.0.1/",
            "http://192.168.1.1/",
            "http://172.16.0.1/",
            "http://169.254.169.254/",
            "http://[::1]/",
            "http://[fd00::1]/",
            "http://[fe80::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://0.0.0.0/",
            "http://100.64.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[64:ff9b::a00:1]/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://user:pass@example.com/",
            "example.com",
            "",
            "http://255.255.255.255/",
        ] {
            assert!(check(url, false).is_err(), "{url}");
        }
        for url in ["https://example.com/hook?x=1", "http://93.184.216.34:8080/", "https://[2606:4700::1111]/"] {
            assert!(check(url, false).is_ok(), "{url}");
        }
        assert!(check("http://127.0.0.1:9000/", true).is_ok());
        assert!(check(&format!("http://example.com/{}", "x".repeat(2000)), true).is_err());
    }
}
