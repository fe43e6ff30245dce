//! The web service and its callers, in one process on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jeton_client::{Client, Token};
use tokio::task::JoinSet;

use crate::guard::{Caller, Need, protect};
use crate::sample::{Recorder, Sample, asked_since};
use crate::{ALTERNATIONS, CALLERS_MAX, Clients, Failure};

/// How many callers, and how often each of them asks; `None`: as soon as it has its answer.
const LOADS: [(usize, Option<Duration>); 4] =
    [(1, None), (16, None), (CALLERS_MAX, None), (CALLERS_MAX, Some(Duration::from_millis(500)))];
/// The routes, which differ in nothing but their guard.
const WAYS: [&str; 3] = ["open", "together", "alone"];

/// One connection that is kept alive, and the token it presents.
struct Visitor {
    sender: SendRequest<Empty<Bytes>>,
    authorization: HeaderValue,
    number: usize,
}

fn service(clients: &Clients) -> Router {
    let guarded = |client: &Client| {
        let need = Need::new(client, "read", "journal/{id}");
        get(async |Path(id): Path<String>, _: Caller| format!("journal {id}\n"))
            .layer(from_fn_with_state(need, protect))
    };
    Router::new()
        .route("/open/{id}", get(async |Path(id): Path<String>| format!("journal {id}\n")))
        .route("/together/{id}", guarded(&clients.together))
        .route("/alone/{id}", guarded(&clients.alone))
}

impl Visitor {
    async fn connect(address: SocketAddr, token: &Token, number: usize) -> Result<Self, Failure> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let authorization = format!("Bearer {}", &*token.to_text()).parse()?;
        Ok(Self { sender, authorization, number })
    }

    async fn request(&mut self, way: &str) -> Result<StatusCode, Failure> {
        let request = Request::get(format!("/{way}/{}", self.number))
            .header(HOST, "localhost")
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Empty::new())?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        Ok(status)
    }
}

/// Has all callers ask for one route for a while; gives them back.
async fn load(
    way: &'static str,
    callers: Vec<Visitor>,
    pace: Option<Duration>,
) -> Result<(Recorder, Vec<Visitor>), Failure> {
    let recorder = Arc::new(Recorder::new()?);
    let mut tasks = JoinSet::new();
    let count = callers.len() as u32;
    for (at, mut caller) in (0..).zip(callers) {
        let recorder = Arc::clone(&recorder);
        tasks.spawn(async move {
            // Those who keep a pace do not all ask at once.
            let first = |pace: Duration| tokio::time::Instant::now() + pace * at / count;
            let mut pace = pace.map(|pace| tokio::time::interval_at(first(pace), pace));
            while !recorder.is_over() {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
                let began = Instant::now();
                let status = caller.request(way).await?;
                if status != StatusCode::OK {
                    return Err(Failure::from(format!("a request was answered {status}")));
                }
                recorder.note(began);
            }
            Ok(caller)
        });
    }
    let callers: Result<Vec<Visitor>, Failure> = tasks.join_all().await.into_iter().collect();
    let recorder = Arc::into_inner(recorder).ok_or("every caller has ended")?;
    Ok((recorder, callers?))
}

pub(crate) async fn measure(clients: &Clients, tokens: &[Token]) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, service(clients)).into_future());
    // Who presents a token for nothing gets nothing.
    let mut stranger = Visitor::connect(address, &Token::from_bytes([1; 32]), 0).await?;
    if stranger.request("together").await? != StatusCode::UNAUTHORIZED {
        return Err("the guard lets strangers in".into());
    }
    println!(
        "| callers | route | requests/s | p50 us | p99 us | CPU us | tokens a frame |\n|---|---|---|---|---|---|---|"
    );
    for (count, pace) in LOADS {
        let mut callers = Vec::with_capacity(count);
        for (number, token) in tokens.iter().take(count).enumerate() {
            callers.push(Visitor::connect(address, token, number).await?);
        }
        let mut samples = [const { Vec::new() }; WAYS.len()];
        for _ in 0..ALTERNATIONS {
            for (way, samples) in WAYS.into_iter().zip(&mut samples) {
                let client = if way == "alone" { &clients.alone } else { &clients.together };
                let before = client.validate_counts();
                let (recorder, back) = load(way, callers, pace).await?;
                callers = back;
                samples.push(recorder.sample(asked_since(client, before))?);
            }
        }
        let who = pace.map_or(count.to_string(), |pace| format!("{count}, each every {pace:?}"));
        for (way, samples) in WAYS.into_iter().zip(&samples) {
            Sample::row(way, &who, samples);
        }
        let [open, together, alone] = samples.each_ref().map(|samples| Sample::median(samples));
        for (way, asked) in [("together", together), ("alone", alone)] {
            println!(
                "{who}, {way}: asking adds {:.0} us (p50), {:.0} us (p99), {:.1} us of processor time",
                asked.p50_us - open.p50_us,
                asked.p99_us - open.p99_us,
                asked.cpu_us - open.cpu_us,
            );
        }
    }
    Ok(())
}
