//! A guard for routes of an axum service: no handler behind it runs before Jeton has said that the bearer token is good
//! for the route's action on its resource.
//!
//! It fails closed: whatever keeps Jeton from an answer is a 503, and never a pass. What refusals look like is RFC 6750,
//! section 3.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::http::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{StatusCode, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jeton_client::{Answer, Check, Claims, Client, Error, Token, Verdict};

/// What a route needs: the state of [`protect`].
#[derive(Clone, Debug)]
pub(crate) struct Need {
    client: Client,
    action: &'static str,
    resource: &'static str,
}

/// Whoever sent the request, for handlers behind [`protect`]; as an argument of a handler elsewhere it refuses all.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    client: Client,
    answer: Answer,
}

/// Why a handler does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no bearer token: 401, and no more than how to present one.
    NoToken,
    /// There is more than one, or half of one: 400.
    Malformed,
    /// It is no token, or not a live one: 401.
    InvalidToken,
    /// It is live, but not for this: 403.
    Forbidden,
    /// Jeton could not be asked: 503, and another try may go better.
    Unavailable,
}

impl Need {
    /// A grant of `action` on `resource`, in which `{name}` stands for the path parameter of that name.
    pub(crate) fn new(client: &Client, action: &'static str, resource: &'static str) -> Self {
        Self { client: client.clone(), action, resource }
    }

    /// The check of one request.
    fn check(&self, params: &RawPathParams) -> Result<Check, Refusal> {
        let mut resource = self.resource.to_owned();
        for (name, value) in params {
            // A parameter is one segment. With a slash, which %2F makes, it would name another resource than the one
            // that the handler takes it for.
            if value.contains(['/', '{']) {
                return Err(Refusal::Forbidden);
            }
            resource = resource.replace(&format!("{{{name}}}"), value);
        }
        // What is not one concrete thing is nothing that anybody has a grant for.
        Check::access(self.action, &resource).map_err(|_| Refusal::Forbidden)
    }

    async fn ask(&self, token: &Token, check: &Check) -> Result<Answer, Refusal> {
        let mut answer = self.client.validate(token, check).await?;
        if answer.verdict == Verdict::ConsumeRequired {
            answer = self.client.consume(token, check, None).await?.0;
        }
        match answer.verdict {
            Verdict::Valid => Ok(answer),
            Verdict::Forbidden => Err(Refusal::Forbidden),
            Verdict::Unavailable => Err(Refusal::Unavailable),
            _ => Err(Refusal::InvalidToken),
        }
    }
}

/// The middleware: `get(handler).layer(from_fn_with_state(need, protect))`.
pub(crate) async fn protect(
    State(need): State<Need>,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let token = bearer(request.headers())?;
    let check = need.check(&params)?;
    let answer = need.ask(&token, &check).await?;
    request.extensions_mut().insert(Caller { client: need.client, answer });
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Result<Token, Refusal> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let header = all.next().ok_or(Refusal::NoToken)?;
    if all.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let text = header.to_str().map_err(|_| Refusal::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Refusal::Malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::NoToken);
    }
    // Most of what is made up is refused here, without asking Jeton.
    Token::parse(token.trim_start_matches(' ')).map_err(|_| Refusal::InvalidToken)
}

impl Caller {
    /// What Jeton said of the token.
    pub(crate) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Whom the token was issued to; asked once for each subject, and remembered by the client.
    pub(crate) async fn subject(&self) -> Result<Option<String>, Refusal> {
        let info = self.client.subject(self.answer.subject).await?;
        Ok(info.and_then(|info| info.name.clone()))
    }

    /// What the token was issued with: scopes, grants, attributes. Remembered as well.
    pub(crate) async fn claims(&self) -> Result<Arc<Claims>, Refusal> {
        let info = self.client.claims(self.answer.claims).await?.ok_or(Refusal::InvalidToken)?;
        let claims = Claims::decode(&info.bytes).map_err(|_| Refusal::Unavailable)?;
        Ok(Arc::new(claims))
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        // A route that nobody guards is a mistake of ours: nobody gets in through it.
        parts.extensions.get().cloned().ok_or(Refusal::Unavailable)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        tracing::warn!(%error, "a request is refused because Jeton could not be asked");
        Self::Unavailable
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let challenge = |words| [(WWW_AUTHENTICATE, words)];
        match self {
            Self::NoToken => (StatusCode::UNAUTHORIZED, challenge("Bearer")).into_response(),
            Self::Malformed => {
                (StatusCode::BAD_REQUEST, challenge("Bearer error=\"invalid_request\"")).into_response()
            }
            Self::InvalidToken => {
                (StatusCode::UNAUTHORIZED, challenge("Bearer error=\"invalid_token\"")).into_response()
            }
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, challenge("Bearer error=\"insufficient_scope\"")).into_response()
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], "try again").into_response()
            }
        }
    }
}
