//! `muster health --probe`: asks a server how it is, with the flags and exit codes
//! of grpc_health_probe, for which it stands in. Called by that name, this program
//! is nothing else. Decides how a process ends; knows no component of ours.

mod connection;
mod flags;
mod span;
mod target;
mod tls;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use http::{HeaderValue, Request, Uri, header::USER_AGENT, uri::Scheme};
use muster_proto::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{
    Code, Status,
    body::Body,
    codec::CompressionEncoding,
    metadata::{BinaryMetadataKey, BinaryMetadataValue, MetadataKey, MetadataMap},
};

use self::{
    connection::{Connection, Secured},
    flags::{Asked, Options},
    span::Span,
    target::Target,
};

/// The program that this stands in for.
pub(crate) const NAME: &str = "grpc_health_probe";

/// How a probe ends that does not find a server SERVING.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The flags are wrong, or a file that they name.
    Arguments = 1,
    /// There is no connection in time.
    Connection = 2,
    /// The call failed, also because the server knows no such service.
    Call = 3,
    /// The service is not SERVING.
    Unhealthy = 4,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}

/// Why a probe does not say that a server is SERVING.
#[derive(Debug)]
struct Failed {
    ending: Ending,
    message: String,
}

/// The probe as a program of its own.
pub(crate) fn program() -> ExitCode {
    let words = std::env::args_os().skip(1);
    main(words.map(|word| word.to_string_lossy().into_owned()))
}

/// Runs the probe with the words behind its name.
pub(crate) fn main(words: impl IntoIterator<Item = String>) -> ExitCode {
    let options = match flags::parse(words) {
        Ok(Asked::Check(options)) => options,
        Ok(Asked::Version) => return version(),
        Err(refused) => {
            if !refused.message.is_empty() {
                say(&refused.message);
            }
            if refused.usage {
                say(flags::usage().trim_end());
            }
            return Ending::Arguments.into();
        }
    };
    if options.verbose {
        say(&parsed(&options));
    }
    match run(&options) {
        Ok(()) => {
            say("status: SERVING");
            ExitCode::SUCCESS
        }
        Err(failed) => {
            say(&failed.message);
            failed.ending.into()
        }
    }
}

/// Speaks on stderr, as the one it stands in for does. Whoever reads only the exit code may have closed it.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn version() -> ExitCode {
    let _ = writeln!(io::stdout(), "{NAME} of muster {}", crate::VERSION);
    ExitCode::SUCCESS
}

fn parsed(options: &Options) -> String {
    let [connect, rpc] = [options.connect_timeout, options.rpc_timeout].map(Span::from);
    let mut lines = vec![
        "parsed options:".to_owned(),
        format!(
            "> addr={} conn_timeout={connect} rpc_timeout={rpc}",
            options.addr
        ),
    ];
    if !options.headers.is_empty() {
        // Their values may be secret.
        let names: Vec<&str> = options
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        lines.push(format!("> headers: {}", names.join(", ")));
    }
    lines.push(format!("> tls={}", options.tls.is_some()));
    if let Some(tls) = &options.tls {
        lines.push(format!("  > verify={:?}", tls.verify));
        if let Some((certificate, key)) = &tls.identity {
            lines.push(format!("  > client-cert={}", certificate.display()));
            lines.push(format!("  > client-key={}", key.display()));
        }
        let name = tls.server_name.as_deref().unwrap_or_default();
        lines.push(format!("  > server-name={name}"));
    }
    lines.join("\n")
}

fn run(options: &Options) -> Result<(), Failed> {
    let bad = |message: String| Failed {
        ending: Ending::Arguments,
        message,
    };
    let unreachable = |message: String| Failed {
        ending: Ending::Connection,
        message: format!(
            "error: failed to connect service at {:?}: {message}",
            options.addr
        ),
    };
    let target = Target::parse(&options.addr).map_err(unreachable)?;
    let secured = secured(options, &target).map_err(|error| {
        bad(format!(
            "failed to initialize tls credentials. error={error}"
        ))
    })?;
    let request = request(options).map_err(bad)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| bad(error.to_string()))?;
    runtime.block_on(ask(options, &target, secured.as_ref(), request))
}

/// TLS, if it is asked for.
fn secured(options: &Options, target: &Target) -> Result<Option<Secured>, String> {
    let Some(tls) = &options.tls else {
        return Ok(None);
    };
    let name = tls.server_name.as_deref().unwrap_or_else(|| target.host());
    let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("{name}: {error}"))?;
    let config = tls::config(tls)?;
    Ok(Some(Secured { config, name }))
}

/// The call, with its headers.
fn request(options: &Options) -> Result<tonic::Request<HealthCheckRequest>, String> {
    let mut request = tonic::Request::new(HealthCheckRequest {
        service: options.service.clone(),
    });
    for (name, value) in &options.headers {
        add(request.metadata_mut(), name, value)
            .ok_or_else(|| format!("error: {name:?} and its value cannot stand in a header"))?;
    }
    request.set_timeout(options.rpc_timeout);
    Ok(request)
}

fn add(headers: &mut MetadataMap, name: &str, value: &str) -> Option<()> {
    if name.ends_with("-bin") {
        let name = BinaryMetadataKey::from_bytes(name.as_bytes()).ok()?;
        headers.append_bin(name, BinaryMetadataValue::from_bytes(value.as_bytes()));
    } else {
        let name = MetadataKey::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, value.parse().ok()?);
    }
    Some(())
}

/// Connects, asks, and judges the answer, each within its time.
async fn ask(
    options: &Options,
    target: &Target,
    secured: Option<&Secured>,
    request: tonic::Request<HealthCheckRequest>,
) -> Result<(), Failed> {
    if options.verbose {
        say("establishing connection");
    }
    let begun = Instant::now();
    let connection = connect(options, target, secured).await?;
    let connected = Span::from(begun.elapsed());
    if options.verbose {
        say(&format!("connection established (took {connected})"));
    }
    let begun = Instant::now();
    let status = call(options, target, connection, request).await?;
    if options.verbose {
        let answered = Span::from(begun.elapsed());
        say(&format!("time elapsed: connect={connected} rpc={answered}"));
    }
    if status == ServingStatus::Serving {
        return Ok(());
    }
    Err(Failed {
        ending: Ending::Unhealthy,
        message: format!(
            "service unhealthy (responded with {:?})",
            status.as_str_name()
        ),
    })
}

async fn connect(
    options: &Options,
    target: &Target,
    secured: Option<&Secured>,
) -> Result<Connection, Failed> {
    let mut last = String::new();
    let limit = options.connect_timeout;
    let opening = connection::open(target, secured, &mut last);
    if let Ok(connection) = timeout(limit, opening).await {
        return Ok(connection);
    }
    let within = Span::from(limit);
    let mut message = format!(
        "timeout: failed to connect service {:?} within {within}",
        options.addr
    );
    if !last.is_empty() {
        message = format!("{message}: {last}");
    }
    Err(Failed {
        ending: Ending::Connection,
        message,
    })
}

async fn call(
    options: &Options,
    target: &Target,
    connection: Connection,
    request: tonic::Request<HealthCheckRequest>,
) -> Result<ServingStatus, Failed> {
    let failed = |message: String| Failed {
        ending: Ending::Call,
        message,
    };
    let (origin, agent) =
        addressed(options, target).map_err(|error| failed(format!("error: {error}")))?;
    let Connection { sender, driver } = connection;
    let service = tower::service_fn(move |mut request: Request<Body>| {
        let mut sender = sender.clone();
        request.headers_mut().insert(USER_AGENT, agent.clone());
        async move { sender.send_request(request).await }
    });
    let mut client = HealthClient::with_origin(service, origin);
    if options.gzip {
        client = client
            .send_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Gzip);
    }
    let answer = tokio::select! {
        biased;
        answer = timeout(options.rpc_timeout, client.check(request)) => answer,
        why = driver => Ok(Err(Status::unavailable(why))),
    };
    match answer {
        Ok(Ok(response)) => Ok(response.get_ref().status()),
        Ok(Err(status)) if status.code() != Code::DeadlineExceeded => Err(failed(refusal(&status))),
        Ok(Err(_)) | Err(_) => {
            let within = Span::from(options.rpc_timeout);
            Err(failed(format!(
                "timeout: health rpc did not complete within {within}"
            )))
        }
    }
}

/// What the call is addressed to, and what it is sent as.
fn addressed(options: &Options, target: &Target) -> Result<(Uri, HeaderValue), http::Error> {
    let named = options.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let scheme = match options.tls {
        Some(_) => Scheme::HTTPS,
        None => Scheme::HTTP,
    };
    let origin = Uri::builder()
        .scheme(scheme)
        .authority(named.unwrap_or_else(|| target.authority()))
        .path_and_query("/")
        .build()?;
    Ok((origin, HeaderValue::try_from(&options.user_agent)?))
}

/// A refused call in words.
fn refusal(status: &Status) -> String {
    let message = status.message();
    if status.code() == Code::Unimplemented {
        return format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {message}"
        );
    }
    format!(
        "error: health rpc failed: rpc error: code = {:?} desc = {message}",
        status.code()
    )
}
