//! `muster explain`: why a service, a replica or a spec is as it is.

use muster_proto::replicas::v1::{
    ExplainServiceRequest, Explanation, explain_service_request::Target,
};

use super::apply;
use crate::{
    args::Explain,
    failure::Failure,
    output::table::{Cell, Table},
    session::{Component, Session},
    text,
};

/// Explains.
pub(crate) async fn run(session: &Session, args: &Explain) -> Result<(), Failure> {
    let targets = match (&args.name, &args.file) {
        (Some(name), _) => vec![Target::Service(name.clone())],
        (None, Some(file)) => apply::read(file)?.into_iter().map(Target::Spec).collect(),
        (None, None) => Vec::new(),
    };
    let mut explanations = Vec::new();
    for target in &targets {
        let request = ExplainServiceRequest {
            target: Some(target.clone()),
            ..Default::default()
        };
        let mut manager = session.replicas();
        let asked = manager.explain_service(request);
        let answer = session.call(Component::Manager, asked).await?;
        let mut explanation = answer.explanation.unwrap_or_default();
        if let Target::Spec(spec) = target
            && let Some(service) = apply::current(session, &spec.name).await?
        {
            let (name, version) = (&service.name, service.version);
            explanation.summary = format!(
                "{name} is applied, in version {version}; this is about what the file says of it"
            );
        }
        explanations.push(explanation);
    }
    if session.print_messages(&explanations, targets.len())? {
        return Ok(());
    }
    for (place, (target, explanation)) in targets.iter().zip(&explanations).enumerate() {
        if targets.len() > 1 {
            let gap = if place == 0 { "" } else { "\n" };
            session.print(&format!("{gap}{}:\n", name(target)))?;
        }
        print(session, explanation)?;
    }
    Ok(())
}

/// What is explained.
fn name(target: &Target) -> &str {
    match target {
        Target::Service(name) => name,
        Target::Spec(spec) => &spec.name,
    }
}

fn print(session: &Session, explanation: &Explanation) -> Result<(), Failure> {
    let mut lines = format!("{}\n", explanation.summary);
    for reason in &explanation.reasons {
        lines.push_str(&format!("  - {reason}\n"));
    }
    let (fitting, considered) = (explanation.workers_fitting, explanation.workers_considered);
    lines.push_str(&format!(
        "another replica would fit on {fitting} of {considered} workers\n"
    ));
    session.print(&lines)?;
    refusals(session, explanation)?;
    offers(session, explanation)
}

fn refusals(session: &Session, explanation: &Explanation) -> Result<(), Failure> {
    if explanation.refusals.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[">WORKERS", "REFUSED BECAUSE", "SUCH AS"]);
    for refusal in &explanation.refusals {
        table.row(vec![
            refusal.count.to_string().into(),
            refusal.message.as_str().into(),
            refusal.workers.join(", ").into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}

fn offers(session: &Session, explanation: &Explanation) -> Result<(), Failure> {
    if !explanation.offers_error.is_empty() {
        return session.print(&format!("\nno offers: {}\n", explanation.offers_error));
    }
    if explanation.offers.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[">PRICE/H", "GPUS", "AVAILABILITY", "OFFER THAT WOULD FIT"]);
    for offer in &explanation.offers {
        let availability = text::word(offer.availability().as_str_name(), "AVAILABILITY_");
        table.row(vec![
            text::print_price(offer.price.as_ref()).into(),
            offer.gpus.as_str().into(),
            Cell::state(availability),
            offer.id.as_str().into(),
        ]);
    }
    session.print("\n")?;
    session.print_table(&table)
}
