//! `muster offers -w`: the answer anew whenever the gateway tells of a change. Which offers come
//! first, and how they are grouped, is the gateway's to say: what is watched only says when to ask.

use std::{future::Future, time::Duration};

use muster_proto::offers::v1::{
    BackendReport, ListOffersRequest, ListOffersResponse, Offer, OfferFilter, WatchOffersRequest,
    WatchOffersResponse, offer_change::Change,
};
use tokio::{sync::Notify, time::sleep};
use tonic::{Code, Response, Status, Streaming};

use super::{limit, list, print, trouble};
use crate::{
    args::Offers as Args,
    commands::{
        backends::Backends,
        live::{self, Flow, Update, Watched},
    },
    failure::Failure,
    session::{Component, Session},
};

/// From one look to the next at least: a burst of changes is shown as one.
const BETWEEN: Duration = Duration::from_millis(100);

/// Shows offers, and what becomes of them, for ever.
pub(super) async fn run(
    session: &Session,
    args: &Args,
    mut request: ListOffersRequest,
) -> Result<(), Failure> {
    let mut shown = Shown::default();
    show(session, args, &request, &mut shown).await?;
    // Backends are refreshed once by our wish; asked so again, each look would be the reason of another.
    request.max_age = None;
    let offers = Offers {
        filter: request.filter.clone().unwrap_or_default(),
    };
    let look = Notify::new();
    let wake = || {
        look.notify_one();
        Ok(Flow::GoOn)
    };
    let backends = Backends::default();
    tokio::try_join!(
        live::follow(session, &offers, |_| wake()),
        // What is wrong with a backend stands below the offers.
        live::follow(session, &backends, |_| wake()),
        look_whenever(&look, session, args, &request, &mut shown),
    )?;
    Ok(())
}

/// Asks and shows after each wake-up; what is away for a while is asked again.
async fn look_whenever(
    look: &Notify,
    session: &Session,
    args: &Args,
    request: &ListOffersRequest,
    shown: &mut Shown,
) -> Result<(), Failure> {
    loop {
        look.notified().await;
        match show(session, args, request, shown).await {
            Ok(()) => sleep(BETWEEN).await,
            Err(failure) if passes(&failure) => {
                sleep(live::PAUSE).await;
                look.notify_one();
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Whether another try may do better. OUT_OF_RANGE is a gateway that began anew between two pages.
fn passes(failure: &Failure) -> bool {
    match failure {
        Failure::Unreachable { .. } => true,
        Failure::Refused(status) => {
            live::passes(status.code()) || status.code() == Code::OutOfRange
        }
        Failure::Failed(_) | Failure::Usage(_) | Failure::TimedOut(_) | Failure::Interrupted(_) => {
            false
        }
    }
}

async fn show(
    session: &Session,
    args: &Args,
    request: &ListOffersRequest,
    shown: &mut Shown,
) -> Result<(), Failure> {
    let answer = list(session, request.clone(), limit(args)).await?;
    let differs = shown.differs(&answer);
    if session.is_terminal() {
        // In any case, since it says how old what is stale is.
        live::clear(session)?;
        print(session, args, &answer)
    } else if differs {
        print(session, args, &answer)
    } else {
        Ok(())
    }
}

/// What was shown last.
#[derive(Debug, Default)]
struct Shown(Option<(ListOffersResponse, Vec<Option<String>>)>);

impl Shown {
    /// Whether an answer says something else than the last one; that time has passed is not.
    fn differs(&mut self, answer: &ListOffersResponse) -> bool {
        let mut facts = answer.clone();
        facts.resume_token.clear();
        for offer in &mut facts.offers {
            offer.observe_time = None;
        }
        let reports = std::mem::take(&mut facts.backends);
        let timeless = |report: BackendReport| BackendReport {
            age: None,
            latency: None,
            ..report
        };
        let troubles = reports.into_iter().map(timeless);
        let troubles = troubles.map(|report| trouble(&report)).collect();
        let facts = Some((facts, troubles));
        let differs = self.0 != facts;
        self.0 = facts;
        differs
    }
}

/// Offers that meet a filter, watched.
struct Offers {
    filter: OfferFilter,
}

impl Watched for Offers {
    type Resource = Offer;
    type Message = WatchOffersResponse;

    const COMPONENT: Component = Component::Gateway;

    /// Without a token from now on: what is there already is listed.
    fn open(
        &self,
        session: &Session,
        resume_token: String,
    ) -> impl Future<Output = Result<Response<Streaming<WatchOffersResponse>>, Status>> + Send {
        let filter = Some(self.filter.clone());
        let mut client = session.offers();
        async move {
            let resume_token = if resume_token.is_empty() {
                let request = ListOffersRequest {
                    filter: filter.clone(),
                    page_size: 1,
                    ..Default::default()
                };
                client.list_offers(request).await?.into_inner().resume_token
            } else {
                resume_token
            };
            let request = WatchOffersRequest {
                filter,
                resume_token,
                include_raw: false,
            };
            client.watch_offers(request).await
        }
    }

    fn read(&self, message: WatchOffersResponse) -> Update<Offer> {
        let change = |change: muster_proto::offers::v1::OfferChange| match change.change? {
            Change::Put(offer) => Some((offer.id.clone(), Some(offer))),
            Change::Deleted(offer) => Some((offer.id, None)),
        };
        Update {
            changes: message.changes.into_iter().filter_map(change).collect(),
            resume_token: message.resume_token,
            synced: message.synced,
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::{
        offers::v1::{BackendData, BackendRefresh},
        types::v1::Price,
    };
    use prost_types::{Duration, Timestamp};

    use super::*;

    fn answer(price: i64, seconds: i64, data: BackendData) -> ListOffersResponse {
        let offer = Offer {
            id: "gcp/us/a/spot".to_owned(),
            price: Some(Price {
                micro_usd_per_hour: price,
            }),
            observe_time: Some(Timestamp { seconds, nanos: 0 }),
            ..Offer::default()
        };
        let report = BackendReport {
            backend: "gcp".to_owned(),
            data: data.into(),
            refresh: BackendRefresh::Ok.into(),
            age: Some(Duration { seconds, nanos: 0 }),
            ..BackendReport::default()
        };
        ListOffersResponse {
            offers: vec![offer],
            total_size: 1,
            backends: vec![report],
            resume_token: seconds.to_string(),
            ..ListOffersResponse::default()
        }
    }

    #[test]
    fn what_is_only_newer_is_not_shown_again() {
        use BackendData::{Cached, Fresh, Stale};
        let mut shown = Shown::default();
        assert!(shown.differs(&answer(1, 1, Fresh)), "the first");
        assert!(!shown.differs(&answer(1, 2, Cached)), "it was read again");
        assert!(shown.differs(&answer(2, 2, Cached)), "its price");
        assert!(shown.differs(&answer(2, 900, Stale)), "its backend");
        assert!(!shown.differs(&answer(2, 960, Stale)), "its age");
        assert!(shown.differs(&ListOffersResponse::default()), "it is gone");
    }

    #[test]
    fn a_gateway_that_is_away_or_began_anew_is_asked_again_and_a_refusal_is_told() {
        let refused = |code| Failure::from(Status::new(code, "x"));
        assert!(passes(&refused(Code::OutOfRange)));
        assert!(passes(&refused(Code::Unavailable)));
        assert!(!passes(&refused(Code::InvalidArgument)));
        assert!(!passes(&refused(Code::PermissionDenied)));
    }
}
