//! The gateway's face: parses what is asked, asks the rest of the crate once, renders the answer.

mod codec;
pub mod convert;
mod list;
mod methods;
mod service;
pub mod wire;

pub use codec::OffersServer;
pub use methods::METHODS;
pub use service::Offers;
