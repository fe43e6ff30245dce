//! Connections to an endpoint, and one exchange on them after another.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use jeton_core::verdict::Verdict;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{Failure, Finished, Job, Subject};
use crate::peer::redis::Tls;

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// Tokens of a list at most.
const TOKENS_MAX: usize = 50_000_000;

/// An endpoint, how to speak to it, and tokens that it knows.
#[derive(Clone)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    pub(crate) uri: Uri,
    pub(crate) tls: Option<Tls>,
    pub(crate) is_http2: bool,
    pub(crate) authorization: Option<String>,
    /// Texts of tokens that are active.
    pub(crate) tokens: Arc<[String]>,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (HTTP/{})", self.uri, if self.is_http2 { "2" } else { "1.1" })
    }
}

impl Endpoint {
    /// The tokens of a file, one a line; all of them must be active.
    pub(crate) fn read_tokens(path: &Path) -> anyhow::Result<Arc<[String]>> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("the token list {}", path.display()))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let tokens: Vec<String> = lines.map(str::to_owned).collect();
        ensure!(!tokens.is_empty(), "the token list {} is empty", path.display());
        ensure!(tokens.len() <= TOKENS_MAX, "a token list holds {TOKENS_MAX} tokens at most");
        if let Some(token) = tokens.iter().find(|token| token.len() < 4 || !token.is_ascii()) {
            bail!("the token list {} holds '{token}', which is no token", path.display());
        }
        Ok(tokens.into())
    }

    /// The request that asks about a token.
    fn request(&self, subject: Subject) -> anyhow::Result<Request<Full<Bytes>>> {
        let token = &self.tokens[subject.number % self.tokens.len()];
        let mut body = String::with_capacity(token.len() + 64);
        body.push_str("token=");
        encode_form(token, subject.is_spoilt, &mut body);
        body.push_str("&token_type_hint=access_token");
        let mut request = Request::builder()
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, HeaderValue::from_str(authorization)?);
        }
        // HTTP/2 names the authority in the target, HTTP/1.1 in a header of its own.
        let request = if self.is_http2 {
            request.uri(self.uri.clone())
        } else {
            let host = self.uri.authority().map_or("", |authority| authority.as_str());
            request.header(HOST, host).uri(self.uri.path_and_query().map_or("/", |path| path.as_str()))
        };
        Ok(request.body(Full::from(body))?)
    }
}

/// Appends a token as a form has it; a spoilt one has another last character.
fn encode_form(token: &str, is_spoilt: bool, into: &mut String) {
    use std::fmt::Write as _;
    let last = token.len() - 1;
    for (at, byte) in token.bytes().enumerate() {
        let byte = match byte {
            b'x' if is_spoilt && at == last => b'y',
            _ if is_spoilt && at == last => b'x',
            byte => byte,
        };
        if byte.is_ascii_alphanumeric() || b"-._*".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The sending half of either protocol.
#[derive(Clone)]
enum Sender {
    Http1(Rc<tokio::sync::Mutex<http1::SendRequest<Full<Bytes>>>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn ask(&mut self, endpoint: &Endpoint, subject: Subject) -> Result<Verdict, Failure> {
        let wrong = |error: anyhow::Error| Failure::Wrong(format!("{error:#}"));
        let lost = |error: hyper::Error| Failure::Lost(error.to_string());
        let request = endpoint.request(subject).map_err(wrong)?;
        // On HTTP/1.1 the body of one answer has to be read before the next request.
        let (status, body) = match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.map_err(lost)?;
                let response = sender.send_request(request).await.map_err(lost)?;
                (response.status(), Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await)
            }
            Self::Http2(sender) => {
                sender.ready().await.map_err(lost)?;
                let response = sender.send_request(request).await.map_err(lost)?;
                (response.status(), Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await)
            }
        };
        let body = body.map_err(|error| Failure::Wrong(error.to_string()))?.to_bytes();
        verdict(status, &body)
    }
}

/// What an answer says.
fn verdict(status: StatusCode, body: &[u8]) -> Result<Verdict, Failure> {
    match status {
        StatusCode::OK => {}
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => return Err(Failure::Refused),
        other => return Err(Failure::Wrong(format!("the endpoint answered {other}"))),
    }
    let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    match answer.as_ref().and_then(|answer| answer.get("active")?.as_bool()) {
        Some(true) => Ok(Verdict::Valid),
        // It does not say why, as Jeton does not to who may not inspect.
        Some(false) => Ok(Verdict::Denied),
        None => {
            Err(Failure::Wrong("the answer is no introspection response (RFC 7662, section 2.2)".to_owned()))
        }
    }
}

/// Connects, and starts the task that asks; returns the way to it.
pub(super) async fn open(
    endpoint: Rc<Endpoint>,
    finished: Finished,
) -> anyhow::Result<mpsc::UnboundedSender<Job>> {
    let nobody = || format!("nobody answers at {}", endpoint.address);
    let connecting = TcpStream::connect(endpoint.address);
    let stream =
        tokio::time::timeout(PATIENCE, connecting).await.with_context(nobody)?.with_context(nobody)?;
    stream.set_nodelay(true)?;
    let unfit = || format!("{endpoint} is no endpoint that can be used");
    let sender = match &endpoint.tls {
        None => handshake(endpoint.is_http2, stream).await.with_context(unfit)?,
        Some(tls) => {
            let mut config = (*tls.config).clone();
            config.alpn_protocols =
                vec![if endpoint.is_http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = connector.connect(tls.server_name.clone(), stream).await.with_context(unfit)?;
            handshake(endpoint.is_http2, stream).await.with_context(unfit)?
        }
    };
    let (jobs, mut queue) = mpsc::unbounded_channel::<Job>();
    tokio::task::spawn_local(async move {
        while let Some(job) = queue.recv().await {
            let (mut sender, endpoint, finished) = (sender.clone(), Rc::clone(&endpoint), finished.clone());
            // On HTTP/1.1 the lock puts them in a row, on HTTP/2 they go beside one another.
            tokio::task::spawn_local(async move {
                let mut verdicts = Vec::with_capacity(job.subjects.len());
                let mut result = Ok(());
                for subject in job.subjects {
                    match sender.ask(&endpoint, subject).await {
                        Ok(verdict) => verdicts.push(verdict),
                        Err(failure) => {
                            result = Err(failure);
                            break;
                        }
                    }
                }
                finished.push(job.id, result.map(|()| verdicts));
            });
        }
    });
    Ok(jobs)
}

async fn handshake<S>(is_http2: bool, stream: S) -> anyhow::Result<Sender>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    if is_http2 {
        let (sender, connection) = http2::handshake(LocalExecutor, io).await?;
        tokio::task::spawn_local(connection);
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::handshake(io).await?;
    tokio::task::spawn_local(connection);
    Ok(Sender::Http1(Rc::new(tokio::sync::Mutex::new(sender))))
}

/// Runs what HTTP/2 does beside requests on the thread that asks.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_encoded_as_forms_have_them() {
        let encoded = |token, is_spoilt| {
            let mut text = String::new();
            encode_form(token, is_spoilt, &mut text);
            text
        };
        assert_eq!(encoded("jtn_aZ-9.", false), "jtn_aZ-9.");
        assert_eq!(encoded("a+b/c=", false), "a%2Bb%2Fc%3D");
        assert_eq!((encoded("abcx", true), encoded("abcd", true)), ("abcy".to_owned(), "abcx".to_owned()));
    }

    #[test]
    fn only_an_introspection_response_is_an_answer() {
        let of = |status: StatusCode, body: &str| match verdict(status, body.as_bytes()) {
            Ok(verdict) => verdict.word().to_owned(),
            Err(Failure::Refused) => "refused".to_owned(),
            Err(Failure::Wrong(words) | Failure::Lost(words)) => words,
        };
        assert_eq!(of(StatusCode::OK, "{\"active\":true,\"sub\":\"x\"}"), "valid");
        assert_eq!(of(StatusCode::OK, "{\"active\":false}"), "denied");
        assert_eq!(of(StatusCode::TOO_MANY_REQUESTS, ""), "refused");
        assert_eq!(of(StatusCode::UNAUTHORIZED, ""), "the endpoint answered 401 Unauthorized");
        for body in ["", "<html>", "{}", "{\"active\":\"yes\"}"] {
            assert!(
                of(StatusCode::OK, body).starts_with("the answer is no introspection response"),
                "{body}"
            );
        }
    }
}
