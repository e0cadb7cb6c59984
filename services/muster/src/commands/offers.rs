//! `muster offers`: machines that could be had, and what each source of them
//! contributed.

mod watch;

use muster_model::{gpu, gpu_syntax};
use muster_proto::{
    offers::v1::{
        BackendData, BackendRefresh, BackendReport, GetOfferRequest, ListOffersRequest,
        ListOffersResponse, Offer, OfferFilter, OfferGroup, OfferGroupBy, OfferOrder,
        OfferOrderKey,
    },
    types::v1::{Availability, CapacityType, CpuArchitecture, GpuRequest, Price, Requirements},
};

use super::live;
use crate::{
    args::{Format, GroupBy, Offers},
    convert,
    failure::Failure,
    output::{
        style::Style,
        table::{Cell, Table},
    },
    session::{Component, Session},
    text,
};

/// How many offers are asked for at once.
const PAGE: usize = 1000;

/// How many offers are shown, unless it is said.
const LIMIT: usize = 20;

/// Shows offers.
pub(crate) async fn run(session: &Session, args: &Offers) -> Result<(), Failure> {
    if let Some(id) = &args.id {
        return show(session, id).await;
    }
    let request = request(args)?;
    if args.watch {
        let watch = Box::pin(watch::run(session, args, request));
        return live::until_interrupted(watch).await;
    }
    let answer = list(session, request, limit(args)).await?;
    print(session, args, &answer)
}

async fn show(session: &Session, id: &str) -> Result<(), Failure> {
    let request = GetOfferRequest {
        id: id.to_owned(),
        include_raw: true,
        ..Default::default()
    };
    let answer = session
        .call(Component::Gateway, session.offers().get_offer(request))
        .await?;
    let Some(offer) = answer.offer else {
        return Err(Failure::Failed(format!(
            "the gateway's answer has no offer {id}"
        )));
    };
    match session.format {
        Format::Json | Format::Yaml => session.print_message(&offer).map(drop),
        Format::Name => session.print(&format!("{}\n", offer.id)),
        Format::Table | Format::Wide => session.print(&detail(session, &offer)),
    }
}

fn detail(session: &Session, offer: &Offer) -> String {
    let now = session.now();
    let architecture = text::word(offer.architecture().as_str_name(), "CPU_ARCHITECTURE_");
    let availability = text::word(offer.availability().as_str_name(), "AVAILABILITY_");
    let source = text::word(
        offer.availability_source().as_str_name(),
        "AVAILABILITY_SOURCE_",
    );
    let mut lines = vec![
        ("id", offer.id.clone()),
        ("backend", offer.backend.clone()),
        ("region", offer.region.clone()),
        ("zone", offer.zone.clone()),
        ("instance type", offer.instance_type.clone()),
        ("capacity", capacity(offer).to_owned()),
        ("GPUs", text::print_gpus(&offer.gpus)),
        ("cpus", text::print_cpu(offer.cpu_milli)),
        ("memory", text::print_memory(offer.memory_mib)),
        ("disk", text::print_memory(offer.disk_mib)),
        ("architecture", architecture.to_lowercase()),
        (
            "price",
            format!("{} an hour", text::print_price(offer.price.as_ref())),
        ),
        ("availability", format!("{availability} (says: {source})")),
        (
            "read",
            format!("{} ago", text::print_ago(offer.observe_time, now)),
        ),
    ];
    lines.retain(|(_, value)| !value.is_empty());
    let mut shown: String = lines
        .iter()
        .map(|(name, value)| format!("{name:<14} {value}\n"))
        .collect();
    if !offer.raw.is_empty() {
        shown.push_str("as the provider wrote it:\n");
    }
    for (name, value) in &offer.raw {
        shown.push_str(&format!("  {name}: {value}\n"));
    }
    shown
}

fn request(args: &Offers) -> Result<ListOffersRequest, Failure> {
    let group_by = match args.group_by {
        None => OfferGroupBy::Unspecified,
        Some(GroupBy::Gpu) => OfferGroupBy::Gpu,
        Some(GroupBy::Backend) => OfferGroupBy::Backend,
        Some(GroupBy::Region) => OfferGroupBy::Region,
    };
    if let (Some(sort), true) = (args.sort, args.group_by.is_some()) {
        group_price(sort.key)?;
    }
    Ok(ListOffersRequest {
        filter: Some(filter(args)?),
        order: args.sort.map(|sort| OfferOrder {
            key: sort.key.into(),
            descending: sort.descending,
        }),
        max_age: args.max_age.and_then(|age| age.try_into().ok()),
        backend_timeout: args.backend_timeout.and_then(|time| time.try_into().ok()),
        group_by: group_by.into(),
        ..ListOffersRequest::default()
    })
}

fn filter(args: &Offers) -> Result<OfferFilter, Failure> {
    let price = |price: Option<muster_model::quantity::MicroUsd>| {
        price.map(|price| Price {
            micro_usd_per_hour: price.0,
        })
    };
    let capacity_type = match (args.spot, args.on_demand) {
        (true, _) => CapacityType::Spot,
        (false, true) => CapacityType::OnDemand,
        (false, false) => CapacityType::Unspecified,
    };
    let availabilities = args.availability.iter().map(|word| availability(word));
    Ok(OfferFilter {
        backends: args.backend.clone(),
        regions: args.region.clone(),
        zones: args.zone.clone(),
        instance_types: args.instance_type.clone(),
        requirements: Some(requirements(args)?),
        capacity_type: capacity_type.into(),
        min_price: price(args.min_price),
        max_price: price(args.max_price),
        availabilities: availabilities.collect::<Result<_, _>>()?,
    })
}

fn requirements(args: &Offers) -> Result<Requirements, Failure> {
    let mut gpu_any_of = Vec::new();
    if args.gpu != "none" {
        gpu_any_of.push(gpu_request(args)?);
    } else if args.compute_capability.is_some() || args.gpu_memory.is_some() {
        let what = "--gpu-memory and --compute-capability are about GPUs: leave out --gpu none";
        return Err(Failure::Usage(what.to_owned()));
    }
    let architecture = match args.arch.as_deref() {
        Some("x86_64") => CpuArchitecture::X8664,
        Some("arm64") => CpuArchitecture::Arm64,
        _ => CpuArchitecture::Unspecified,
    };
    Ok(Requirements {
        gpu_any_of,
        cpu_milli: args.cpu.unwrap_or_default(),
        memory_mib: args.memory.unwrap_or_default(),
        disk_mib: args.disk.unwrap_or_default(),
        architecture: architecture.into(),
    })
}

fn gpu_request(args: &Offers) -> Result<GpuRequest, Failure> {
    let request =
        gpu_syntax::parse(&args.gpu).map_err(|error| Failure::Usage(format!("--gpu: {error}")))?;
    let mut request = convert::render_gpu_request(&request);
    request.min_compute_capability = args.compute_capability.clone().unwrap_or_default();
    if let Some(least) = args.gpu_memory {
        request
            .total_memory_mib
            .get_or_insert_with(Default::default)
            .min = Some(least);
    }
    Ok(request)
}

fn availability(word: &str) -> Result<i32, Failure> {
    let name = format!("AVAILABILITY_{}", word.to_uppercase().replace('-', "_"));
    match Availability::from_str_name(&name) {
        Some(value) if value != Availability::Unspecified => Ok(value.into()),
        _ => {
            let words = "unknown, available, no-capacity, no-quota, no-balance, idle";
            Err(Failure::Usage(format!(
                "--availability: `{word}` is not one of {words}"
            )))
        }
    }
}

/// What groups are ordered by, where they can be by that.
fn group_price(key: OfferOrderKey) -> Result<fn(&OfferGroup) -> Option<Price>, Failure> {
    match key {
        OfferOrderKey::Price | OfferOrderKey::Unspecified => Ok(|group| group.min_price),
        OfferOrderKey::PricePerGpu => Ok(|group| group.min_price_per_gpu),
        OfferOrderKey::PricePerGpuGib | OfferOrderKey::Memory | OfferOrderKey::Age => {
            let what = "--sort: groups are ordered by price or price-per-gpu";
            Err(Failure::Usage(what.to_owned()))
        }
    }
}

/// How many offers, or groups of them, are shown.
fn limit(args: &Offers) -> usize {
    let all = match args.group_by {
        None => LIMIT,
        Some(GroupBy::Gpu | GroupBy::Backend | GroupBy::Region) => usize::MAX,
    };
    args.limit.unwrap_or(all)
}

/// Asks for pages until `limit` offers are there, and joins them.
async fn list(
    session: &Session,
    mut request: ListOffersRequest,
    limit: usize,
) -> Result<ListOffersResponse, Failure> {
    let mut joined: Option<ListOffersResponse> = None;
    loop {
        let have = joined.as_ref().map_or(0, |joined| joined.offers.len());
        request.page_size = i32::try_from((limit - have).clamp(1, PAGE)).unwrap_or(i32::MAX);
        let mut client = session.offers();
        let page = session
            .call(Component::Gateway, client.list_offers(request.clone()))
            .await?;
        let next = page.next_page_token.clone();
        let joined = match joined.as_mut() {
            None => joined.insert(page),
            Some(joined) => {
                joined.offers.extend(page.offers);
                joined
            }
        };
        joined.next_page_token.clear();
        if next.is_empty() || joined.offers.len() >= limit {
            joined.offers.truncate(limit);
            return Ok(std::mem::take(joined));
        }
        request.page_token = next;
    }
}

fn print(session: &Session, args: &Offers, whole: &ListOffersResponse) -> Result<(), Failure> {
    let mut answer = whole.clone();
    if let Some(sort) = args.sort {
        let price = group_price(sort.key)?;
        answer.groups.sort_by_key(|group| {
            let price = price(group);
            // What has no price is last in either order.
            let price = price.map(|price| price.micro_usd_per_hour);
            let price = price.map(|price| if sort.descending { -price } else { price });
            (price.is_none(), price)
        });
    }
    answer.groups.truncate(limit(args));
    let answer = &answer;
    match session.format {
        Format::Json | Format::Yaml if args.watch => session.print_line(answer).map(drop),
        Format::Json | Format::Yaml => session.print_message(answer).map(drop),
        Format::Name => {
            let offers = answer.offers.iter().map(|offer| &offer.id);
            let groups = answer.groups.iter().map(|group| &group.key);
            let names: String = offers
                .chain(groups)
                .map(|name| format!("{name}\n"))
                .collect();
            session.print(&names)
        }
        Format::Table | Format::Wide => {
            let table = if args.group_by.is_some() {
                groups_table(answer)
            } else {
                offers_table(&answer.offers, session.is_wide())
            };
            if answer.total_size > 0 {
                session.print_table(&table)?;
            }
            session.print(&footer(session, args, answer, whole.groups.len()))
        }
    }
}

/// Offers, a row each.
pub(crate) fn offers_table(offers: &[Offer], wide: bool) -> Table {
    let mut header = vec![
        ">PRICE/H",
        "GPUS",
        ">CPUS",
        ">MEMORY",
        "BACKEND",
        "REGION",
        "INSTANCE TYPE",
        "CAPACITY",
        "AVAILABILITY",
    ];
    if wide {
        header.extend([">DISK", "ZONE", "ARCH", "ID"]);
    }
    let mut table = Table::new(&header);
    for offer in offers {
        let availability = text::word(offer.availability().as_str_name(), "AVAILABILITY_");
        let mut row: Vec<Cell> = vec![
            text::print_price(offer.price.as_ref()).into(),
            text::print_gpus(&offer.gpus).into(),
            text::print_cpu(offer.cpu_milli).into(),
            text::print_memory(offer.memory_mib).into(),
            offer.backend.as_str().into(),
            text::or_nothing(&offer.region).into(),
            offer.instance_type.as_str().into(),
            capacity(offer).into(),
            Cell::state(availability),
        ];
        if wide {
            let architecture = text::word(offer.architecture().as_str_name(), "CPU_ARCHITECTURE_");
            row.extend([
                text::print_memory(offer.disk_mib).into(),
                text::or_nothing(&offer.zone).into(),
                architecture.to_lowercase().into(),
                offer.id.as_str().into(),
            ]);
        }
        table.row(row);
    }
    table
}

fn capacity(offer: &Offer) -> &'static str {
    match offer.capacity_type() {
        CapacityType::Spot => "spot",
        CapacityType::OnDemand => "on-demand",
        CapacityType::Unspecified => "-",
    }
}

fn groups_table(answer: &ListOffersResponse) -> Table {
    let mut table = Table::new(&[
        "WHAT",
        ">OFFERS",
        ">FROM/H",
        ">FROM/H A GPU",
        ">TO/H",
        ">REGIONS",
        "BACKENDS",
    ]);
    for group in &answer.groups {
        table.row(vec![
            group.key.as_str().into(),
            group.offers.to_string().into(),
            text::print_price(group.min_price.as_ref()).into(),
            text::print_price(group.min_price_per_gpu.as_ref()).into(),
            text::print_price(group.max_price.as_ref()).into(),
            group.regions.to_string().into(),
            group.backends.join(", ").into(),
        ]);
    }
    table
}

/// How many of how many, and a line for each backend that is not well.
fn footer(session: &Session, args: &Offers, answer: &ListOffersResponse, groups: usize) -> String {
    let total = grouped(answer.total_size);
    let mut lines = match (args.group_by, answer.groups.len()) {
        _ if answer.total_size == 0 => "no offers match\n".to_owned(),
        (None, _) => {
            let shown = i32::try_from(answer.offers.len()).unwrap_or(i32::MAX);
            format!("{} of {total}\n", grouped(shown))
        }
        (Some(_), shown) if shown == groups => format!("{shown} groups of {total} offers\n"),
        (Some(_), shown) => format!("{shown} of {groups} groups of {total} offers\n"),
    };
    if answer.total_size == 0 {
        lines.push_str(&unknown_gpus(&args.gpu));
    }
    for report in &answer.backends {
        if let Some(line) = trouble(report) {
            lines.push_str(&session.colours.paint(Style::Warning, &line));
            lines.push('\n');
        }
    }
    lines
}

/// A line for each accelerator asked for whose name nobody knows: it may be why nothing is found.
fn unknown_gpus(asked: &str) -> String {
    let names = gpu_syntax::parse(asked).map_or_else(|_| Vec::new(), |request| request.names);
    let unknown = names.iter().filter(|name| name.known().is_none());
    let line = |name: &gpu::GpuName| match gpu::suggestion(name.as_str()) {
        Some(near) => format!("no known GPU is named {name}; did you mean {near}?\n"),
        None => format!("no known GPU is named {name}\n"),
    };
    unknown.map(line).collect()
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: i32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What is wrong with a backend, such as "azure: stale 12 m, timed out after
/// 2 s"; nothing if it is well.
pub(crate) fn trouble(report: &BackendReport) -> Option<String> {
    let data = match report.data() {
        BackendData::Fresh | BackendData::Cached | BackendData::Unspecified => None,
        BackendData::Stale => Some(format!("stale {}", text::print_span(report.age))),
        BackendData::None if report.dropped => {
            Some(format!("left out, {} old", text::print_span(report.age)))
        }
        BackendData::None => Some("no offers".to_owned()),
    };
    let refresh = match report.refresh() {
        BackendRefresh::NotTried | BackendRefresh::Ok | BackendRefresh::Unspecified => None,
        // The error, if there is one, says after how long.
        BackendRefresh::TimedOut if !report.error.is_empty() => Some("timed out".to_owned()),
        BackendRefresh::TimedOut => Some(format!(
            "timed out after {}",
            text::print_span(report.latency)
        )),
        BackendRefresh::Failed => Some("failed".to_owned()),
        BackendRefresh::BreakerOpen if !report.error.is_empty() => Some("failing".to_owned()),
        BackendRefresh::BreakerOpen => Some("left alone after repeated failures".to_owned()),
        BackendRefresh::Disabled => Some("disabled".to_owned()),
    };
    let error = (!report.error.is_empty()).then(|| report.error.clone());
    if data.is_none() && refresh.is_none() {
        return None;
    }
    let parts: Vec<String> = [data, refresh].into_iter().flatten().collect();
    let parts = parts.join(", ");
    Some(match error {
        Some(error) => format!("{}: {parts}: {error}", report.backend),
        None => format!("{}: {parts}", report.backend),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        let shown = [0, 20, 999, 1000, 51_302, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "20", "999", "1,000", "51,302", "1,234,567"]);
    }

    #[test]
    fn a_name_that_nobody_knows_is_told_with_the_nearest() {
        assert_eq!(
            unknown_gpus("H1000:8"),
            "no known GPU is named H1000; did you mean H100?\n"
        );
        assert_eq!(unknown_gpus("H100,any"), "");
        assert_eq!(unknown_gpus("any"), "");
    }

    #[test]
    fn a_backend_that_is_well_is_not_mentioned() {
        let mut report = BackendReport {
            backend: "azure".to_owned(),
            ..BackendReport::default()
        };
        report.set_data(BackendData::Cached);
        report.set_refresh(BackendRefresh::NotTried);
        assert_eq!(trouble(&report), None);
    }

    #[test]
    fn a_backend_that_is_not_well_says_what_is_wrong() {
        let mut report = BackendReport {
            backend: "azure".to_owned(),
            age: Some(prost_types::Duration {
                seconds: 720,
                nanos: 0,
            }),
            latency: Some(prost_types::Duration {
                seconds: 2,
                nanos: 0,
            }),
            ..BackendReport::default()
        };
        report.set_data(BackendData::Stale);
        report.set_refresh(BackendRefresh::TimedOut);
        assert_eq!(
            trouble(&report).unwrap(),
            "azure: stale 12 m, timed out after 2 s"
        );
        report.error = "no route to host".to_owned();
        report.set_data(BackendData::None);
        report.set_refresh(BackendRefresh::Failed);
        assert_eq!(
            trouble(&report).unwrap(),
            "azure: no offers, failed: no route to host"
        );
    }
}
