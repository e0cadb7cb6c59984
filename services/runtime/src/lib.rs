//! What every Muster process is made of: settings, clock, tasks, health, a gRPC server with its
//! layers, shutdown, and the clients that reach other processes. It knows nothing of what any of
//! them is for.
//!
//! # How a component is put together
//!
//! A component is a library with one function, and a `main.rs` that names it. The function gets all
//! that it needs: nothing here is global, so the same code runs as a process, beside others in one
//! process, and in a test on port 0.
//!
//! That function gives a boxed future, and `main` is not generic, so that the component is compiled with its
//! library, and not once more with each program that it is in.
//!
//! ```no_run
//! use futures_util::future::BoxFuture;
//! use muster_runtime::args::CommonArgs;
//! use muster_runtime::context::Context;
//! use muster_runtime::process::{self, Component, NoArgs, NoFile, Renewed};
//! use muster_runtime::server::{Listeners, Server};
//! use muster_runtime::shutdown::Phase;
//!
//! /// Serves until shutdown. Tests call it with `Context::for_tests` and `Listeners::loopback`.
//! pub fn serve(
//!     config: Config,
//!     context: Context,
//!     listeners: Listeners,
//! ) -> BoxFuture<'static, anyhow::Result<()>> {
//!     Box::pin(async move {
//!         let stop = context.shutdown.reached(Phase::Loops);
//!         context.tasks.critical("refresh", async move {
//!             tokio::select! {
//!                 () = stop => {}
//!                 () = refresh_for_ever(config.every) => {}
//!             }
//!         });
//!         Server::new(&context)
//!             // .methods(METHODS)                      who may call what
//!             // .service(ThingsServiceServer::new(..)) any generated tonic server
//!             .serve(listeners)
//!             .await?;
//!         Ok(())
//!     })
//! }
//!
//! /// The checked settings.
//! pub struct Config {
//!     every: std::time::Duration,
//! }
//!
//! /// The component as a program.
//! pub struct Sample;
//!
//! impl Component for Sample {
//!     const NAME: &'static str = "sample";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     const ABOUT: &'static str = "Does nothing, well";
//!     const DEFAULTS: &'static [(&'static str, &'static str)] =
//!         &[("listen", "127.0.0.1:7409"), ("ops-listen", "127.0.0.1:7419")];
//!     type Args = NoArgs;
//!     type File = NoFile;
//!     type Config = Config;
//!
//!     fn configure(_: &CommonArgs, _: NoArgs, _: NoFile) -> Result<Config, String> {
//!         Ok(Config { every: std::time::Duration::from_secs(5) })
//!     }
//!
//!     async fn run(
//!         config: Config,
//!         _: Renewed<Config>,
//!         context: Context,
//!         listeners: Listeners,
//!     ) -> anyhow::Result<()> {
//!         // Open the store here, and close it in a step of `Phase::Store`.
//!         serve(config, context, listeners).await
//!     }
//! }
//!
//! /// All that `main.rs` calls.
//! pub fn main() -> std::process::ExitCode {
//!     process::main::<Sample>()
//! }
//! # async fn refresh_for_ever(_: std::time::Duration) {}
//! ```
//!
//! In a test:
//!
//! ```
//! # use muster_runtime::{context::Context, server::{Listeners, Server}, shutdown::Cause};
//! # async fn serve(context: Context, listeners: Listeners) { let _ = Server::new(&context).serve(listeners).await; }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let context = Context::for_tests("sample");
//! let listeners = Listeners::loopback().await?;
//! let address = listeners.grpc_address(); // bound: a client may connect at once
//! context.tasks.spawn("sample", serve(context.clone(), listeners));
//! context.health.until_ready().await;
//! // ... call it at `address` ...
//! # let _ = address;
//! context.shutdown.begin(Cause::asked("the test is over"));
//! assert!(context.shutdown.finished().await.is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! Several components in one process have a [`context::Context`] each, and share one
//! [`telemetry::Telemetry`] and one [`signals::Signals`], which their shutdowns are forwarded to.
//!
//! # In reading order
//!
//! [`clock`], [`task`] and [`shutdown`] are what a component lives by; [`health`] and [`metrics`]
//! what it tells of itself; [`instances`] who else is on its store; [`context`] holds them together; [`server`] serves, through the
//! [`layers`], whom [`auth`] knows; [`operations`] is the service of every component; [`args`] and [`process`] make a program of it. What services
//! speak with: [`connect`], [`status`], [`page`], [`resume`], [`watch`], [`deadline`] and
//! [`backoff`].

/// Memory of every process. What one thread makes and another frees (a call's records, which the store's
/// writer drops) costs the system's allocator a lock that all threads want.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod age;
pub mod args;
pub mod auth;
pub mod backoff;
mod check;
pub mod clock;
pub mod connect;
pub mod context;
pub mod deadline;
pub mod health;
pub mod instances;
pub mod layers;
pub mod metrics;
pub mod operations;
mod ops;
pub mod page;
pub mod panic;
pub mod process;
pub mod resume;
pub mod server;
pub mod shutdown;
pub mod signals;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod watch;
pub mod wire;
