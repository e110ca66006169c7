//! Parameters of a legacy request, wherever they stand: query, form, multipart or JSON, merged in this order.
//!
//! The sketches put raw, unescaped JSON into form values, guides post JSON where the legacy service read forms, and the
//! oldest mini-program posts JSON under any content type. So the body is taken for what it looks like, and a percent sign
//! that begins no escape is a percent sign.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use serde_json::Value;
use tokio::time::timeout;

use super::error::ApiError;
use super::options::Options;

/// Parameters of one request at most; a further one is refused with 400.
const PARAMETERS_LIMIT: usize = 64;

/// The parameters of a request as texts. Numbers of a JSON body are written in decimal, arrays and objects as JSON.
#[derive(Debug, Default)]
pub(super) struct Params(BTreeMap<String, String>);

impl Params {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// 400 for a body that is not what it says, 408 and 413 at the limits.
    pub(super) async fn of(request: Request, options: &Options) -> Result<Self, ApiError> {
        let mut params = Self::default();
        if let Some(query) = request.uri().query() {
            params.add_form(query)?;
        }
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_ascii_lowercase();
        let reading = async {
            if content_type.starts_with("multipart/form-data") {
                params.add_multipart(request, options.body_limit_bytes, None).await
            } else {
                let body = to_bytes(request.into_body(), options.body_limit_bytes).await.map_err(|_| too_large())?;
                params.add_body(&content_type, &body)
            }
        };
        let Ok(outcome) = timeout(options.body_timeout, reading).await else { return Err(too_late()) };
        outcome?;
        Ok(params)
    }

    /// Reads the parameters of a multipart request, and the file of this name if there is one, up to a limit of its own.
    ///
    /// # Errors
    /// As [`Params::of`].
    pub(super) async fn of_file(
        request: Request,
        options: &Options,
        name: &str,
    ) -> Result<(Self, Option<Bytes>), ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|kind| kind.to_ascii_lowercase().starts_with("multipart/form-data")) {
            return Ok((Self::of(request, options).await?, None));
        }
        let mut params = Self::default();
        if let Some(query) = request.uri().query() {
            params.add_form(query)?;
        }
        let mut file = None;
        let reading = params.add_multipart(request, options.file_limit_bytes, Some((name, &mut file)));
        // A large file over a slow line takes its time; it ends where the line stalls.
        let Ok(outcome) = timeout(options.file_timeout, reading).await else { return Err(too_late()) };
        outcome?;
        Ok((params, file))
    }

    /// A parameter that is there and not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The names that are there.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// A parameter that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing(name))
    }

    fn add(&mut self, name: String, value: String) -> Result<(), ApiError> {
        if self.0.len() >= PARAMETERS_LIMIT && !self.0.contains_key(&name) {
            return Err(ApiError::bad_request(format!("more than {PARAMETERS_LIMIT} parameters")));
        }
        self.0.insert(name, value);
        Ok(())
    }

    fn add_form(&mut self, form: &str) -> Result<(), ApiError> {
        for pair in form.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.add(unescape(name)?, unescape(value)?)?;
        }
        Ok(())
    }

    fn add_body(&mut self, content_type: &str, body: &[u8]) -> Result<(), ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| ApiError::bad_request("the body is not UTF-8".to_owned()))?;
        let looks_like_json = text.trim_ascii_start().starts_with('{');
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(members)) if looks_like_json => {
                for (name, value) in members {
                    let value = match value {
                        Value::Null => continue,
                        Value::String(text) => text,
                        Value::Number(number) => whole_number(&number),
                        other => other.to_string(),
                    };
                    self.add(name, value)?;
                }
                Ok(())
            }
            _ if text.trim_ascii().is_empty() => Ok(()),
            _ if looks_like_json || content_type.starts_with("application/json") => {
                Err(ApiError::bad_request("the body is not a JSON object".to_owned()))
            }
            _ => self.add_form(text),
        }
    }

    async fn add_multipart(
        &mut self,
        request: Request,
        limit_bytes: usize,
        mut wanted: Option<(&str, &mut Option<Bytes>)>,
    ) -> Result<(), ApiError> {
        let malformed = |_| ApiError::bad_request("the multipart body cannot be read".to_owned());
        let (parts, body) = request.into_parts();
        let body = Body::from(to_bytes(body, limit_bytes).await.map_err(|_| too_large())?);
        let mut request = Request::from_parts(parts, body);
        // The limit that counts was kept above; the extractor's own is lower.
        DefaultBodyLimit::disable().apply(&mut request);
        let unreadable = |_| ApiError::bad_request("the multipart body has no boundary".to_owned());
        let mut multipart = Multipart::from_request(request, &()).await.map_err(unreadable)?;
        while let Some(field) = multipart.next_field().await.map_err(malformed)? {
            let Some(name) = field.name().map(str::to_owned) else { continue };
            if let Some((_, file)) = wanted.as_mut().filter(|(wanted, _)| *wanted == name) {
                **file = Some(field.bytes().await.map_err(malformed)?);
                continue;
            }
            if field.file_name().is_some() {
                continue;
            }
            let value = field.text().await.map_err(malformed)?;
            self.add(name, value)?;
        }
        Ok(())
    }
}

fn too_late() -> ApiError {
    let status = StatusCode::REQUEST_TIMEOUT;
    ApiError::with_status(status, "body_timeout", "the body did not arrive in time")
}

fn too_large() -> ApiError {
    ApiError::with_status(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "the body is too large or broke off")
}

/// A number without exponent or `.0` where it is whole, so that ids read the same from JSON and from forms.
fn whole_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => format!("{float:.0}"),
        _ => number.to_string(),
    }
}

/// Undoes form escapes; what is no escape stands for itself.
fn unescape(text: &str) -> Result<String, ApiError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = match (byte, after) {
            (b'%', [high, low, tail @ ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| (high << 4 | low, tail)),
            _ => None,
        };
        match (byte, escaped) {
            (_, Some((value, tail))) => {
                bytes.push(value);
                rest = tail;
            }
            (b'+', None) => bytes.push(b' '),
            (byte, None) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_request("a parameter is not UTF-8".to_owned()))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn params(uri: &str, content_type: &str, body: &str) -> Result<Params, ApiError> {
        let request = Request::post(uri).header(header::CONTENT_TYPE, content_type).body(Body::from(body.to_owned()));
        Params::of(request.unwrap(), &Options::default()).await
    }

    #[tokio::test]
    async fn parameters_are_found_wherever_they_stand() {
        let form = "application/x-www-form-urlencoded";
        let bodies = [
            (form, "session_id=1015&openid=u+1%2B&content=%E8%BF%99"),
            (form, r#"{"session_id":1015,"openid":"u 1+","content":"这"}"#),
            ("application/json", r#"{"session_id":"1015","openid":"u 1+","content":"这","none":null}"#),
            ("application/json; charset=utf-8", r#" {"session_id":1015.0,"openid":"u 1+","content":"这"}"#),
            ("", "session_id=1015&openid=u 1%2b&content=这&&x"),
            (
                "multipart/form-data; boundary=b",
                "--b\r\nContent-Disposition: form-data; name=\"session_id\"\r\n\r\n1015\r\n--b\r\nContent-Disposition: form-data; name=\"openid\"\r\n\r\nu 1+\r\n--b\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\n这\r\n--b--\r\n",
            ),
        ];
        for (content_type, body) in bodies {
            let params = params("/x/?device_code=2025001&session_id=7", content_type, body).await.unwrap();
            assert_eq!(params.get("session_id"), Some("1015"), "{body}: the body counts before the query");
            assert_eq!(params.get("openid"), Some("u 1+"), "{body}");
            assert_eq!(params.get("content"), Some("这"), "{body}");
            assert_eq!(params.get("device_code"), Some("2025001"));
            assert_eq!(params.get("none"), None);
        }
    }

    #[tokio::test]
    async fn raw_json_in_a_form_value_stands() {
        let data = r#"{"acc":[1.20,-0.80,9.81],"p":"50%","q":"%zz"}"#;
        let form = params("/", "application/x-www-form-urlencoded", &format!("a=1&data={data}&b=2")).await.unwrap();
        assert_eq!(form.get("data"), Some(data));
        assert_eq!((form.get("a"), form.get("b")), (Some("1"), Some("2")));
    }

    #[tokio::test]
    async fn a_body_that_lies_is_a_400() {
        for (content_type, body) in [
            ("application/json", "[1]"),
            ("application/json", "{"),
            ("application/x-www-form-urlencoded", "{\"a\":"),
            ("multipart/form-data", "x"),
            ("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1"),
            ("", "a=%ff"),
        ] {
            let error = params("/", content_type, body).await.unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST, "{content_type} {body}");
        }
        let many: Vec<String> = (0..100).map(|i| format!("p{i}=1")).collect();
        assert_eq!(params("/", "", &many.join("&")).await.unwrap_err().status, StatusCode::BAD_REQUEST);
        let large = "a=".to_owned() + &"x".repeat(2 << 20);
        assert_eq!(params("/", "", &large).await.unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let number = params("/", "application/json", r#"{"session_id":1.5}"#).await.unwrap();
        assert_eq!(number.get("session_id"), Some("1.5"));
    }
}
