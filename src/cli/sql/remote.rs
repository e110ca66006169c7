//! A running server as the place where statements are answered.

use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Failure, Rows};
use crate::query::Format;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An error answer that is longer is not read.
const PROBLEM_LIMIT_BYTES: usize = 64 * 1024;

/// A server's SQL route.
pub(super) struct Remote {
    uri: Uri,
    address: String,
    timeout_ms: Option<u64>,
}

impl Remote {
    pub(super) fn new(url: &str, timeout_s: Option<u64>) -> Result<Self, Failure> {
        let bad =
            |why: &str| Failure::new(2, format!("--url {url}: {why}")).hint("write it like http://127.0.0.1:8000");
        let base: Uri = url.trim_end_matches('/').parse().map_err(|_| bad("not a URL"))?;
        match base.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(
                    bad("https is not spoken by this command").hint("use an SSH tunnel to the server's own port")
                );
            }
            _ => return Err(bad("not an http URL")),
        }
        let host = base.host().ok_or_else(|| bad("no host"))?;
        let address = format!("{host}:{}", base.port_u16().unwrap_or(80));
        let uri =
            format!("{}/api/v2/sql", base.to_string().trim_end_matches('/')).parse().map_err(|_| bad("not a URL"))?;
        Ok(Self { uri, address, timeout_ms: timeout_s.map(|seconds| seconds.saturating_mul(1000)) })
    }

    pub(super) async fn rows(&self, sql: &str) -> Result<Rows, Failure> {
        let mut pieces = self.bytes(sql, Format::Arrow).await?;
        let mut decoder = StreamDecoder::new();
        let mut batches: Vec<RecordBatch> = Vec::new();
        // The schema comes first; the batches that came with it are kept.
        let schema = loop {
            match pieces.next().await {
                Some(piece) => batches.extend(decode(&mut decoder, piece?)?),
                None => return Err(cut()),
            }
            if let Some(schema) = decoder.schema() {
                break schema;
            }
        };
        let rest = futures::stream::unfold(Some((pieces, decoder)), |state| async move {
            let (mut pieces, mut decoder) = state?;
            match pieces.next().await {
                Some(piece) => match piece.and_then(|piece| decode(&mut decoder, piece)) {
                    Ok(batches) => Some((Ok(batches), Some((pieces, decoder)))),
                    Err(failure) => Some((Err(failure), None)),
                },
                None => decoder.finish().is_err().then(|| (Err(cut()), None)),
            }
        });
        let batches = futures::stream::iter([Ok(batches)]).chain(rest).flat_map(|batches| {
            futures::stream::iter(match batches {
                Ok(batches) => batches.into_iter().map(Ok).collect(),
                Err(failure) => vec![Err(failure)],
            })
        });
        Ok(Rows { schema, batches: batches.boxed() })
    }

    pub(super) async fn bytes(
        &self,
        sql: &str,
        format: Format,
    ) -> Result<BoxStream<'static, Result<Bytes, Failure>>, Failure> {
        let response = self.post(sql, format).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body().into_data_stream().map(|piece| piece.map_err(|_| cut())).boxed());
        }
        let body = Limited::new(response.into_body(), PROBLEM_LIMIT_BYTES)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        Err(problem(status.as_u16(), &body.unwrap_or_default()))
    }

    async fn post(&self, sql: &str, format: Format) -> Result<Response<Incoming>, Failure> {
        let format = match format {
            Format::Json => "json",
            Format::Jsonl => "jsonl",
            Format::Csv => "csv",
            Format::Arrow => "arrow",
        };
        let mut body = serde_json::json!({ "query": sql, "format": format });
        if let Some(timeout_ms) = self.timeout_ms {
            body["timeout_ms"] = timeout_ms.into();
        }
        let unreachable = |why: String| {
            Failure::new(4, format!("reach {}: {why}", self.address))
                .hint("is the server running? volant serve starts it")
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&self.address))
            .await
            .map_err(|_| unreachable("no answer".to_owned()))?
            .map_err(|error| unreachable(error.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        // The connection ends when the answer has been read or dropped; what went wrong shows on the answer.
        tokio::spawn(connection);
        let request = Request::post(self.uri.path())
            .header(header::HOST, self.uri.authority().map_or("", |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| unreachable(error.to_string()))?;
        sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))
    }
}

fn decode(decoder: &mut StreamDecoder, piece: Bytes) -> Result<Vec<RecordBatch>, Failure> {
    let mut buffer = Buffer::from(piece);
    let mut batches = Vec::new();
    while !buffer.is_empty() {
        let batch =
            decoder.decode(&mut buffer).map_err(|error| Failure::new(4, format!("read the answer: {error}")))?;
        batches.extend(batch);
    }
    Ok(batches)
}

fn cut() -> Failure {
    Failure::new(3, "the server ended the answer before it was complete")
        .hint("a limit of the server was reached: ask for fewer rows, or raise the server's query limits")
}

/// A failure as the server tells it (RFC 9457).
fn problem(status: u16, body: &[u8]) -> Failure {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let exit = match (status, problem["code"].as_str()) {
        (422 | 503, _) => 3,
        (400 | 403 | 413, Some(_)) => 1,
        _ => 4,
    };
    let Some(detail) = problem["detail"].as_str() else {
        return Failure::new(4, format!("the server answered with status {status}"))
            .hint("does --url name a Volant server, and are you allowed to ask it?");
    };
    let failure = Failure::new(exit, detail);
    match problem["hint"].as_str() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
