//! `muster apply`: makes services what a file says.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use muster_proto::replicas::v1::{
    Service, ServiceSpec, UpdateEffect, UpdateServiceRequest, UpdateServiceResponse,
};
use prost_types::FieldMask;
use tonic::Code;

use super::{
    diff,
    follow::{self, Goal},
    services,
};
use crate::{
    args::{Apply, Format},
    failure::Failure,
    output::json,
    session::{Component, Session},
    spec, text,
};

/// The largest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// Applies every service of a file, in order. Of several, none is applied if one of them would be refused.
pub(crate) async fn run(session: &Session, args: &Apply) -> Result<(), Failure> {
    let specs = read_all(&args.file)?;
    let asked = specs.len();
    let mut answers = Vec::new();
    let applied = Box::pin(apply(session, args, specs, &mut answers)).await;
    // Also where one was refused: those before it are applied.
    if !answers.is_empty() {
        session.print_messages(&answers, asked)?;
    }
    applied?;
    if args.dry_run || args.no_start || !session.follows(&args.following) {
        return Ok(());
    }
    let services = answers.into_iter().filter_map(|answer| answer.service);
    // What the file says is to run, also where it was rolled back before.
    let goal = |service: &Service| Goal::Healthy {
        version: service.version,
    };
    let goals: Vec<_> = services.map(|service| (goal(&service), service)).collect();
    follow::services(session, &goals, &args.following).await?;
    if session.is_terminal() {
        for (_, service) in goals {
            session.print(&format!("{} is HEALTHY\n", service.name))?;
        }
    }
    Ok(())
}

/// Applies these, and tells a person of each at once.
async fn apply(
    session: &Session,
    args: &Apply,
    specs: Vec<ServiceSpec>,
    answers: &mut Vec<UpdateServiceResponse>,
) -> Result<(), Failure> {
    let several = specs.len() > 1;
    let named = |failure: Failure, name: &str| match several {
        true => failure.about(name),
        false => failure,
    };
    if several && !args.dry_run {
        for spec in &specs {
            let checked = update(session, args, spec.clone(), true).await;
            checked.map_err(|failure| named(failure, &spec.name))?;
        }
    }
    for spec in specs {
        let before = match args.dry_run {
            true => current(session, &spec.name).await?,
            false => None,
        };
        let name = spec.name.clone();
        let answer = update(session, args, spec, args.dry_run).await;
        let answer = answer.map_err(|failure| named(failure, &name))?;
        match session.format {
            // Printed together.
            Format::Json | Format::Yaml => {}
            Format::Name => session.print(&format!("{name}\n"))?,
            Format::Table | Format::Wide => {
                session.print(&words(&answer, before.as_ref(), args.dry_run)?)?;
            }
        }
        answers.push(answer);
    }
    Ok(())
}

async fn update(
    session: &Session,
    args: &Apply,
    spec: ServiceSpec,
    validate_only: bool,
) -> Result<UpdateServiceResponse, Failure> {
    let request = UpdateServiceRequest {
        spec: Some(spec),
        update_mask: Some(FieldMask {
            paths: vec!["*".to_owned()],
        }),
        allow_missing: true,
        validate_only,
        no_start: args.no_start,
        ..UpdateServiceRequest::default()
    };
    let mut manager = session.replicas();
    let asked = manager.update_service(request);
    session.call(Component::Manager, asked).await
}

/// The service as it is, if it is there.
pub(crate) async fn current(session: &Session, name: &str) -> Result<Option<Service>, Failure> {
    match services::get(session, name).await {
        Ok(service) => Ok(Some(service)),
        Err(Failure::Refused(status)) if status.code() == Code::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What was done, or would be; with the values before and after where those before are known.
fn words(
    answer: &UpdateServiceResponse,
    before: Option<&Service>,
    dry_run: bool,
) -> Result<String, Failure> {
    let service = answer.service.clone().unwrap_or_default();
    let would = if dry_run { "would be " } else { "" };
    let mut text = if answer.created {
        format!("{} {would}created\n", service.name)
    } else {
        match answer.effect() {
            UpdateEffect::None | UpdateEffect::Unspecified => {
                format!("{} {would}unchanged\n", service.name)
            }
            UpdateEffect::InPlace => {
                format!(
                    "{} {would}changed in place, without a restart\n",
                    service.name
                )
            }
            UpdateEffect::Rolling => {
                let version = service.version;
                format!(
                    "{} {would}updated to version {version}, replica by replica\n",
                    service.name
                )
            }
        }
    };
    let specs = match before.and_then(|before| before.spec.as_ref()) {
        Some(before) => Some((
            json::value(before)?,
            json::value(&service.spec.unwrap_or_default())?,
        )),
        None => None,
    };
    for path in answer.changed_paths.iter().filter(|_| !answer.created) {
        match &specs {
            Some((before, after)) => text.push_str(&diff::lines(path, before, after)),
            None => text.push_str(&format!("  {path}\n")),
        }
    }
    for note in &answer.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    Ok(text)
}

/// The services of files, each there once.
fn read_all(files: &[PathBuf]) -> Result<Vec<ServiceSpec>, Failure> {
    let mut specs: Vec<ServiceSpec> = Vec::new();
    for file in files {
        for spec in read(file)? {
            if specs.iter().any(|other| other.name == spec.name) {
                let message = format!("{}: {} is there twice", file.display(), spec.name);
                return Err(Failure::Usage(message));
            }
            specs.push(spec);
        }
    }
    Ok(specs)
}

/// The services of a file.
pub(crate) fn read(file: &Path) -> Result<Vec<ServiceSpec>, Failure> {
    let place = file.display();
    let text = contents(file).map_err(|error| Failure::Usage(format!("{place}: {error}")))?;
    spec::parse(&text).map_err(|problems| {
        let lines: Vec<String> = problems
            .iter()
            .map(|problem| format!("{place}: {problem}"))
            .collect();
        Failure::Usage(lines.join("\n"))
    })
}

fn contents(file: &Path) -> Result<String, std::io::Error> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
    } else {
        fs::File::open(file)?
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)?;
    }
    let invalid =
        |message: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, message.to_owned());
    if bytes.len() as u64 > MAX_FILE {
        return Err(invalid("the file is larger than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| invalid("the file is not UTF-8"))
}

/// A service for a sentence: its name and how it is.
pub(crate) fn sentence(service: &Service) -> String {
    let status = service.status.clone().unwrap_or_default();
    let phase = text::word(status.phase().as_str_name(), "SERVICE_PHASE_");
    format!("{} is {phase}\n", service.name)
}
