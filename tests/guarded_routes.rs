//! The guard of the client's example service, asked as a web server would ask it, in front of a real Jeton.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "a service needs more of it than its refusals")]
#[path = "../net/client/examples/axum/guard.rs"]
mod guard;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{Request, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use jeton_client::{Client, Config, Identity, RevokeTarget};
use jeton_tests::{Server, issue_for, run};
use tower::ServiceExt as _;

use guard::{Caller, Need, Refusal, protect};

async fn read(Path(id): Path<String>, caller: Caller) -> Result<String, Refusal> {
    let grants = caller.claims().await?.grants().len();
    Ok(format!("{} reads {id} with {grants}", caller.subject().await?.unwrap_or_default()))
}

fn service(client: &Client) -> Router {
    let need = Need::new(client, "read", "journal/{id}");
    Router::new()
        .route("/journal/{id}", get(read).layer(from_fn_with_state(need, protect)))
        .route("/forgotten/{id}", get(read))
}

/// Status, challenge and body.
async fn ask(service: &Router, path: &str, authorization: &[&str]) -> (StatusCode, String, String) {
    let mut request = Request::get(path);
    for header in authorization {
        request = request.header("authorization", *header);
    }
    let response = service.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let challenge =
        response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
    (status, challenge.unwrap_or_default(), String::from_utf8(body.to_vec()).unwrap())
}

async fn assert_refused(service: &Router, path: &str, authorization: &[&str], status: u16, challenge: &str) {
    let (told, challenged, _) = ask(service, path, authorization).await;
    assert_eq!((told.as_u16(), challenged.as_str()), (status, challenge), "{path} {authorization:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_is_open_to_live_tokens_with_the_grant_and_to_nothing_else() {
    const INVALID: &str = "Bearer error=\"invalid_token\"";
    const SCOPE: &str = "Bearer error=\"insufficient_scope\"";
    const REQUEST: &str = "Bearer error=\"invalid_request\"";
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let admin = server.admin().await;
    assert!(run(dir.path(), &["identity", "create", "shop", "--rights", "validate"], "").status.success());
    let identity = Identity::from_dir(dir.path().join("identities/shop")).unwrap();
    let deadline = Duration::from_secs(30);
    let client = Client::connect(Config { deadline, ..Config::new(server.address, identity) }).await.unwrap();
    let service = service(&client);
    let mut tokens = admin.issue(issue_for(&["alice", "bob"]), None).await.unwrap().tokens;
    let (bob, alice) = (tokens.pop().unwrap(), tokens.pop().unwrap());
    let header = format!("Bearer {}", &*alice.to_text());
    let bearer = header.as_str();

    let (status, _, body) = ask(&service, "/journal/42", &[bearer]).await;
    assert_eq!((status, body.as_str()), (StatusCode::OK, "alice reads 42 with 1"));
    assert_eq!(
        ask(&service, "/journal/42", &[&header.replace("Bearer ", "bEARER  ")]).await.0,
        StatusCode::OK
    );

    assert_refused(&service, "/journal/42", &[], 401, "Bearer").await;
    assert_refused(&service, "/journal/42", &["Basic YWxpY2U6"], 401, "Bearer").await;
    assert_refused(&service, "/journal/42", &["Bearer"], 400, REQUEST).await;
    assert_refused(&service, "/journal/42", &[bearer, bearer], 400, REQUEST).await;
    assert_refused(&service, "/journal/42", &["Bearer of news"], 401, INVALID).await;
    assert_refused(&service, "/journal/43", &[bearer], 403, SCOPE).await;
    // One parameter is one segment, and never a pattern.
    assert_refused(&service, "/journal/42%2Fpages", &[bearer], 403, SCOPE).await;
    assert_refused(&service, "/journal/%2A", &[bearer], 403, SCOPE).await;
    // A route that nobody guards lets nobody in.
    assert_refused(&service, "/forgotten/42", &[bearer], 503, "").await;

    let bobs = format!("Bearer {}", &*bob.to_text());
    admin.revoke(RevokeTarget::Token(bob)).await.unwrap();
    assert_refused(&service, "/journal/42", &[&bobs], 401, INVALID).await;

    let mut once = issue_for(&["carol"]);
    once.uses_max = 1;
    let once = format!("Bearer {}", &*admin.issue(once, None).await.unwrap().tokens[0].to_text());
    assert_eq!(ask(&service, "/journal/42", &[&once]).await.0, StatusCode::OK);
    assert_refused(&service, "/journal/42", &[&once], 401, INVALID).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_jeton_gone_nobody_is_let_in() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let identity = Identity::from_dir(dir.path().join("identities/admin")).unwrap();
    let deadline = Duration::from_millis(500);
    let client = Client::connect(Config { deadline, ..Config::new(server.address, identity) }).await.unwrap();
    let token = server.admin().await.issue(issue_for(&["alice"]), None).await.unwrap().tokens.remove(0);
    server.kill9();
    let bearer = format!("Bearer {}", &*token.to_text());
    let service = service(&client);
    assert_refused(&service, "/journal/42", &[&bearer], 503, "").await;
    assert_refused(&service, "/journal/42", &["Bearer of news"], 401, "Bearer error=\"invalid_token\"").await;
}
