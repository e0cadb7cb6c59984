//! Who may call what.

use muster_runtime::auth::{Role, Roles};
use muster_runtime::server::Method;

/// Whoever launches machines tells what came of it: people, and the other components.
const LAUNCHERS: Roles = Roles::OPERATE.and(Role::Component);

/// The methods of OffersService.
pub const METHODS: &[Method] = &[
    Method::new("/muster.offers.v1.OffersService/ListOffers", Roles::READ),
    Method::new("/muster.offers.v1.OffersService/StreamOffers", Roles::READ).bounded(),
    Method::new("/muster.offers.v1.OffersService/WatchOffers", Roles::READ),
    Method::new("/muster.offers.v1.OffersService/GetOffer", Roles::READ),
    Method::new("/muster.offers.v1.OffersService/ListBackends", Roles::READ),
    Method::new("/muster.offers.v1.OffersService/WatchBackends", Roles::READ),
    Method::new("/muster.offers.v1.OffersService/GetBackend", Roles::READ),
    Method::new(
        "/muster.offers.v1.OffersService/RefreshBackend",
        Roles::OPERATE,
    ),
    Method::new("/muster.offers.v1.OffersService/ReportOffer", LAUNCHERS),
];
