//! Asking until there is an answer: on a new connection if one was lost, after a pause if the server is busy, never past
//! the deadline.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use jeton_core::numbers::LogId;
use jeton_wire::frame::REQUEST_BYTES_MAX;
use jeton_wire::request::Request;
use jeton_wire::response::Response;
use tokio::time::Instant;

use super::{Client, unexpected};
use crate::Error;
use crate::link::{Link, encoded};

/// A try may take this part of a request's deadline.
const TRIES_PER_DEADLINE: u32 = 3;
/// The first pause before a new connection; it doubles, with jitter.
const RECONNECT_FIRST: Duration = Duration::from_millis(20);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

impl Client {
    /// A connection, within the deadline of a request.
    pub(super) async fn linked(&self) -> Result<Arc<Link>, Error> {
        tokio::time::timeout(self.0.config.deadline, self.0.pool.link()).await.map_err(|_| Error::Deadline)?
    }

    /// Why a request that began then has no answer by now: what stood in its way is better than a bare "too late".
    pub(super) fn too_late(&self, began: Instant) -> Error {
        let obstacle = self.0.obstacle.lock().unwrap_or_else(PoisonError::into_inner);
        let since = obstacle.as_ref().filter(|(at, _)| *at >= began);
        since.map_or(Error::Deadline, |(_, error)| error.clone())
    }

    /// Asks until there is an answer or the deadline has passed: again on a new connection if one was lost, again
    /// after a pause if the server is busy.
    pub(super) async fn ask(&self, frame: &[u8]) -> Result<(Response, LogId), Error> {
        // The server ends the conversation with whoever sends more than it takes: say so before.
        if frame.len() > REQUEST_BYTES_MAX {
            return Err(Error::TooLarge { bytes: frame.len(), max: REQUEST_BYTES_MAX });
        }
        let began = Instant::now();
        let asking = async {
            let _permit = self.0.in_flight.acquire().await.map_err(|_| unexpected())?;
            let mut pause = RECONNECT_FIRST;
            let mut busy = 0;
            loop {
                let answer = match self.0.pool.link().await {
                    Ok(link) => self.ask_once(&link, frame).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok((Response::Busy { retry_ms }, _)) => {
                        busy += 1;
                        if busy > self.0.config.busy_retries_max {
                            return Err(Error::Busy);
                        }
                        tokio::time::sleep(jittered(Duration::from_millis(u64::from(retry_ms)) * busy)).await;
                    }
                    Ok((Response::NotAllowed, _)) => return Err(Error::NotAllowed),
                    Ok((Response::Failed(message), _)) => return Err(Error::Failed(message)),
                    Ok(answer) => return Ok(answer),
                    Err(error) if error.is_lost() => {
                        tracing::debug!(%error, "asking again on a new connection");
                        let obstacle = Some((Instant::now(), error));
                        *self.0.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
                        tokio::time::sleep(jittered(pause)).await;
                        pause = (pause * 2).min(RECONNECT_MAX);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let answer = tokio::time::timeout(self.0.config.deadline, asking).await;
        answer.unwrap_or_else(|_| Err(self.too_late(began)))
    }

    /// One try. A server that is gone without a word would be noticed by its silence only, after 10 s: one from which
    /// nothing at all comes for a part of the deadline, not even the answer to a ping, is given up, and the request goes
    /// out again on a new connection. A write that only takes long is waited for.
    async fn ask_once(&self, link: &Link, frame: &[u8]) -> Result<(Response, LogId), Error> {
        let patience = self.0.config.deadline / TRIES_PER_DEADLINE;
        let mut call = std::pin::pin!(link.call(frame.to_vec()));
        loop {
            if let Ok(answer) = tokio::time::timeout(patience, &mut call).await {
                return answer.map(|response| (response, link.ack.log));
            }
            let ping = link.call(encoded(&Request::Ping));
            if !link.heard_within(patience) && tokio::time::timeout(patience, ping).await.is_err() {
                link.give_up();
                return Err(Error::Closed("the server did not answer".to_owned()));
            }
        }
    }
}

/// Between half and all of `pause`, so that many clients do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let _ = getrandom::fill(&mut byte); // without it they do come back at once
    pause / 2 + pause * u32::from(byte[0]) / 512
}
