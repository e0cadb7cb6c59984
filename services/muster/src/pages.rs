//! Lists that come in pages: asked for page by page, and joined.

use muster_proto::replicas::v1::{
    ListEndpointsResponse, ListEventsResponse, ListOrphansResponse, ListReplicasResponse,
    ListServicesResponse,
};
use muster_proto::workers::v1::{
    ListJoinTokensResponse, ListWorkerEventsResponse, ListWorkersResponse,
};

use crate::failure::Failure;

/// The most that the components put into a page.
pub(crate) const PAGE: i32 = 1000;

/// An answer that may be one page of several.
pub(crate) trait Page {
    /// The token of the page that follows, which is taken out; empty if this is the last.
    fn take_next(&mut self) -> String;

    /// Takes in what the page that follows lists.
    fn join(&mut self, next: Self);
}

/// Takes page after page.
pub(crate) async fn each<P: Page>(
    ask: impl AsyncFn(String) -> Result<P, Failure>,
    mut take: impl FnMut(P),
) -> Result<(), Failure> {
    let mut token = String::new();
    loop {
        let mut page = ask(token).await?;
        token = page.take_next();
        take(page);
        if token.is_empty() {
            return Ok(());
        }
    }
}

/// Everything as one page, which says of itself what the first one said.
pub(crate) async fn joined<P: Page + Default>(
    ask: impl AsyncFn(String) -> Result<P, Failure>,
) -> Result<P, Failure> {
    let mut joined: Option<P> = None;
    each(ask, |page| match &mut joined {
        None => joined = Some(page),
        Some(joined) => joined.join(page),
    })
    .await?;
    Ok(joined.unwrap_or_default())
}

macro_rules! pages {
    ($($answer:ty: $items:ident,)*) => {$(
        impl Page for $answer {
            fn take_next(&mut self) -> String {
                std::mem::take(&mut self.next_page_token)
            }

            fn join(&mut self, next: Self) {
                self.$items.extend(next.$items);
            }
        }
    )*};
}

pages! {
    ListEndpointsResponse: endpoints,
    ListEventsResponse: events,
    ListJoinTokensResponse: join_tokens,
    ListOrphansResponse: orphans,
    ListReplicasResponse: replicas,
    ListServicesResponse: services,
    ListWorkerEventsResponse: events,
    ListWorkersResponse: workers,
}

#[cfg(test)]
mod tests {
    use muster_proto::replicas::v1::Orphan;

    use super::*;

    #[tokio::test]
    async fn pages_are_joined_to_what_the_first_one_says() {
        let page = |of: &str, next: &str| ListOrphansResponse {
            orphans: vec![Orphan {
                attempt_id: of.to_owned(),
                ..Orphan::default()
            }],
            next_page_token: next.to_owned(),
            resume_token: format!("after {of}"),
        };
        let joined = joined(async |token: String| match token.as_str() {
            "" => Ok(page("a", "2")),
            "2" => Ok(page("b", "3")),
            "3" => Ok(page("c", "")),
            _ => Err(Failure::Failed(token)),
        });
        let joined: ListOrphansResponse = joined.await.unwrap();
        let ids: Vec<&str> = joined.orphans.iter().map(|o| &*o.attempt_id).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(joined.resume_token, "after a");
        assert_eq!(joined.next_page_token, "");
    }

    #[tokio::test]
    async fn a_page_that_fails_fails_all() {
        let asked = joined(async |token: String| match token.as_str() {
            "" => Ok(ListOrphansResponse {
                next_page_token: "2".to_owned(),
                ..ListOrphansResponse::default()
            }),
            _ => Err(Failure::Failed("away".to_owned())),
        });
        assert!(matches!(asked.await, Err(Failure::Failed(words)) if words == "away"));
    }
}
