//! Against an endpoint of hyper's own, on loopback: it knows ten tokens.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::*;
use crate::layout::Role;

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_right = request.method() == "POST" && request.uri().path() == "/introspect";
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body).into_owned();
    let token = text.strip_prefix("token=").and_then(|rest| rest.split('&').next()).unwrap_or_default();
    let is_active = is_right && token.starts_with("token-") && token.len() == 7;
    let is_active = is_active && token[6..].parse::<u8>().is_ok();
    Ok(Response::new(Full::from(format!("{{\"active\":{is_active}}}"))))
}

fn serve(is_http2: bool) -> SocketAddr {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let (io, service) = (TokioIo::new(stream), service_fn(answer));
                tokio::spawn(async move {
                    if is_http2 {
                        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = server.serve_connection(io, service).await;
                    } else {
                        let _ =
                            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                    }
                });
            }
        });
    });
    told.recv().unwrap()
}

fn endpoint(address: SocketAddr, is_http2: bool) -> Endpoint {
    Endpoint {
        address,
        uri: format!("http://{address}/introspect").parse().unwrap(),
        tls: None,
        is_http2,
        authorization: None,
        tokens: (0..10).map(|number| format!("token-{number}")).collect::<Vec<_>>().into(),
    }
}

/// Turns until something was answered.
fn next(peer: &mut IntrospectionPeer) -> (u64, Result<Vec<Verdict>, String>, Vec<TokenBytes>) {
    let mut answer = None;
    for _ in 0..2_000 {
        peer.turn(&mut |_, id, reply| {
            answer = Some(match reply {
                Reply::Verdicts(verdicts) => (id, Ok(verdicts.to_vec()), Vec::new()),
                Reply::Issued(tokens) => (id, Ok(Vec::new()), tokens.to_vec()),
                other => (id, Err(format!("{other:?}")), Vec::new()),
            });
        })
        .unwrap();
        if let Some(answer) = answer {
            return answer;
        }
        peer.wait(Instant::now() + Duration::from_millis(5)).unwrap();
    }
    panic!("no answer came");
}

#[test]
fn tokens_are_asked_about_whole_and_spoilt_over_both_protocols() {
    for is_http2 in [false, true] {
        let endpoint = endpoint(serve(is_http2), is_http2);
        let mut peer = IntrospectionPeer::connect(&endpoint, 2).unwrap();
        let subjects = vec![String::new(); 15];
        peer.ask(0, 1, &Question::Issue { role: Role::Live, subjects: &subjects, fresh: &[] }).unwrap();
        let (_, _, mut tokens) = next(&mut peer);
        assert_eq!((tokens.len(), tokens[3], tokens[13]), (15, place(3), place(3)), "a list goes round");
        tokens[1][0] ^= 0x80;
        tokens[2][31] ^= 1;
        peer.ask(1, 7, &Question::Validate { tokens: &tokens[..4], checks: None }).unwrap();
        let (id, verdicts, _) = next(&mut peer);
        let expected = vec![Verdict::Valid, Verdict::Denied, Verdict::Denied, Verdict::Valid];
        assert_eq!((id, verdicts), (7, Ok(expected)), "HTTP/2: {is_http2}");
        peer.reconnect(1).unwrap();
        peer.ask(1, 8, &Question::Validate { tokens: &tokens[..1], checks: None }).unwrap();
        assert_eq!(next(&mut peer).1, Ok(vec![Verdict::Valid]));
    }
}

#[test]
fn an_endpoint_that_goes_away_ends_the_run() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = endpoint(listener.local_addr().unwrap(), false);
    let closing = std::thread::spawn(move || drop(listener.accept()));
    let mut peer = IntrospectionPeer::connect(&endpoint, 1).unwrap();
    closing.join().unwrap();
    peer.ask(0, 1, &Question::Validate { tokens: &[place(0)], checks: None }).unwrap();
    let said = (0..400).find_map(|_| {
        std::thread::sleep(Duration::from_millis(5));
        peer.turn(&mut |_, _, _| {}).err()
    });
    assert!(said.unwrap().to_string().starts_with("the connection to http://127.0.0.1:"));
}
