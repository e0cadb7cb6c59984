//! Pages of lists: a cursor is the key after which the next page begins.

use muster_proto::replicas::v1 as wire;
use muster_runtime::auth::Principal;
use muster_runtime::page::{Asked, Budget, Sealer, TokenError};
use muster_runtime::status::Violations;
use prost::Message;
use tonic::{Request, Status};

use super::Api;

/// A request for a page of a list.
pub(super) trait Paged: Message {
    /// The position that the answer must not be older than.
    fn not_before(&mut self) -> &mut String;
    /// How long the page may be, and where it begins.
    fn paging(&mut self) -> (&mut i32, &mut String);
}

macro_rules! paged {
    ($($request:ident)*) => {$(
        impl Paged for wire::$request {
            fn not_before(&mut self) -> &mut String {
                &mut self.not_before
            }

            fn paging(&mut self) -> (&mut i32, &mut String) {
                (&mut self.page_size, &mut self.page_token)
            }
        }
    )*};
}

paged! {
    ListServicesRequest
    ListServiceVersionsRequest
    ListReplicasRequest
    ListEventsRequest
    ListEndpointsRequest
    ListOrphansRequest
}

impl Api {
    /// Waits until this instance may answer a list call, and reads where its page begins. What is left of
    /// the request says what is listed.
    pub(super) async fn page<M: Paged>(
        &self,
        method: &str,
        mut request: Request<M>,
    ) -> Result<(M, Page<'_>), Status> {
        let not_before = std::mem::take(request.get_mut().not_before());
        self.not_before(&request, &not_before).await?;
        let principal = Principal::of(&request);
        let mut asked = request.into_inner();
        let page = Page::open(&self.sealer, method, &principal, &mut asked)?;
        Ok((asked, page))
    }
}

/// A list call: where its page begins, and how long it may be.
pub(super) struct Page<'a> {
    scope: muster_runtime::page::Scope<'a>,
    size: usize,
    /// The key to begin after; empty is the start.
    pub(super) after: String,
}

/// What a page came to.
pub(super) struct Cut<T> {
    pub(super) items: Vec<T>,
    pub(super) next_page_token: String,
}

impl<'a> Page<'a> {
    /// Reads a request's paging fields, which are moved out of it; the rest binds the token.
    fn open<M: Paged>(
        sealer: &'a Sealer,
        method: &str,
        principal: &Principal,
        request: &mut M,
    ) -> Result<Self, Status> {
        let mut faults = Violations::new();
        let (size, token) = request.paging();
        let asked = Asked::take(size, token, &mut faults);
        faults.into_result()?;
        let scope = sealer.scope(method, principal.id(), request);
        let after = match scope.open(&asked.token)? {
            Some(cursor) => String::from_utf8(cursor.to_vec()).map_err(|_| TokenError::Mismatch)?,
            None => String::new(),
        };
        Ok(Self {
            scope,
            size: asked.size,
            after,
        })
    }

    /// Fills the page from items with their keys, in order of key.
    pub(super) fn fill<T: Message>(&self, items: impl Iterator<Item = (String, T)>) -> Cut<T> {
        let mut budget = Budget::new(self.size);
        let mut page = Vec::new();
        let mut last = String::new();
        let mut more = false;
        for (key, item) in items.skip_while(|(key, _)| *key <= self.after && !self.after.is_empty())
        {
            if budget.is_full() || !budget.admit(item.encoded_len()) {
                more = true;
                break;
            }
            page.push(item);
            last = key;
        }
        Cut {
            items: page,
            next_page_token: if more {
                self.scope.seal(last.as_bytes())
            } else {
                String::new()
            },
        }
    }
}
