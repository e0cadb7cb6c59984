//! Pages of lists: how many items, when a page is full, and the tokens that lead from one page to
//! the next. It decides nothing about the order of a list, and never looks into a cursor.
//!
//! A token carries the list's own cursor in the clear (it is no secret) under a MAC over the
//! method, the caller, the other request fields and the cursor: so it opens only for the same
//! caller asking the same, and no server-side table of tokens is needed.

mod budget;
mod token;

#[cfg(test)]
mod tests;

use crate::status::{self, Violations};
use muster_proto::types::v1::ErrorReason;
use tonic::{Code, Status};

pub use budget::{Budget, cut};
pub use token::{Scope, Sealer};

/// Items of a page whose request leaves the size open.
pub const DEFAULT_SIZE: usize = 50;

/// The most items of a page, whatever its request says.
pub const MAX_SIZE: usize = 1000;

/// The most encoded bytes of a page or a watch message, unless a single item is larger: half of
/// what gRPC clients accept by default.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;

/// What a list request says about paging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Items of the page, 1 to [`MAX_SIZE`].
    pub size: usize,
    /// The token as the caller sent it; empty asks for the first page.
    pub token: String,
}

impl Asked {
    /// Moves the paging fields out of a request, so that what stays in it is what a token binds.
    /// A size that is not allowed is noted in `violations`.
    pub fn take(page_size: &mut i32, page_token: &mut String, violations: &mut Violations) -> Self {
        let size = violations.take("page_size", size(std::mem::take(page_size)));
        Self {
            size: size.unwrap_or(DEFAULT_SIZE),
            token: std::mem::take(page_token),
        }
    }
}

/// The number of items that `page_size` asks for.
pub fn size(page_size: i32) -> Result<usize, NegativeSize> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(DEFAULT_SIZE),
        Ok(size) => Ok(size.min(MAX_SIZE)),
        Err(_) => Err(NegativeSize),
    }
}

/// A page size below zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must not be negative")]
pub struct NegativeSize;

/// Why a page token does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It was altered, or given for another method, caller or request.
    #[error("the page token does not belong to this request; repeat the fields of the first page")]
    Mismatch,
    /// It is of another instance or of an earlier run, or what it pointed into is gone.
    #[error("the page token has expired; list again from the first page")]
    Expired,
}

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        let (code, reason) = match error {
            TokenError::Mismatch => (Code::InvalidArgument, ErrorReason::PageTokenMismatch),
            TokenError::Expired => (Code::OutOfRange, ErrorReason::PageTokenExpired),
        };
        status::error(code, reason, error.to_string()).into_status()
    }
}
