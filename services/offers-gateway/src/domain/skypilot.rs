//! Reads a catalogue in SkyPilot's CSV layout, by the names of its columns. One bad row is skipped
//! and counted, never fatal; a file that is no catalogue at all is refused whole, so that it does
//! not take the place of a good one.
//!
//! Rows with accelerators are held back until the whole file is read: what their memory means is
//! decided by all of them together ([`Sizes`]), and those without an instance type are completed
//! from other rows ([`gcp`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use muster_model::constraints::CapacityType;
use muster_model::gpu::{self, GpuGroup, Vendor, WHOLE};
use muster_model::quantity::MicroUsd;

use super::builder::{Builder, RawId};
use super::csv::{self, Column, Fields, Header, LineError};
use super::gpu_info::{self, Sizes};
use super::number;
use super::offer::{Availability, Draft, Machine, Source};
use super::snapshot::Snapshot;
use super::{arch, gcp};

/// A file that is no catalogue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// There is nothing in it.
    #[error("the file is empty")]
    Empty,
    /// The first line cannot be read.
    #[error("the first line has no column names: {0}")]
    Header(#[from] LineError),
    /// It lacks a column that every catalogue has.
    #[error("not a catalogue: there is no column {0}")]
    NoColumn(&'static str),
    /// There are column names and no rows: it is being written, or was cut short.
    #[error("there are no rows after the column names")]
    NoRows,
    /// There are rows, and no offer in any.
    #[error("no row can be used: {0}")]
    NothingUsable(String),
}

/// Why a row is not an offer.
pub(super) type Skip = Cow<'static, str>;

/// Reads a file. `file` is its name, for the places of skipped rows.
pub fn read(backend: &str, file: &str, text: &[u8]) -> Result<Snapshot, Unreadable> {
    let mut lines = csv::lines(text);
    let (_, first) = lines.next().ok_or(Unreadable::Empty)?;
    let header = Header::parse(first?)?;
    let columns = Columns::find(&header)?;
    let mut reader = Reader {
        builder: Builder::new(backend, Source::Catalog),
        file,
        header,
        columns,
        sizes: Sizes::default(),
        accelerators: Vec::new(),
        hosts: gcp::Hosts::default(),
        completed: BTreeMap::new(),
    };
    for (line, text) in lines {
        reader.builder.intake.rows += 1;
        if let Err(reason) = reader.line(line, text) {
            reader.skip(line, reason);
        }
    }
    reader.finish()
}

/// Where the columns are that are read.
#[derive(Debug)]
struct Columns {
    kinds: Vec<Column>,
    instance_type: usize,
    region: usize,
    zone: Option<usize>,
    accelerator: Option<usize>,
    count: Option<usize>,
    gpu_info: Option<usize>,
    cpus: Option<usize>,
    memory: Option<usize>,
    disk: Option<usize>,
    arch: Option<usize>,
    price: Option<usize>,
    spot_price: Option<usize>,
}

impl Columns {
    fn find(header: &Header) -> Result<Self, Unreadable> {
        let need = |name: &'static str| header.find(name).ok_or(Unreadable::NoColumn(name));
        let columns = Self {
            kinds: header.names().iter().map(|name| kind(name)).collect(),
            instance_type: need("InstanceType")?,
            region: need("Region")?,
            zone: header.find("AvailabilityZone"),
            accelerator: header.find("AcceleratorName"),
            count: header.find("AcceleratorCount"),
            gpu_info: header.find("GpuInfo"),
            cpus: header.find("vCPUs"),
            memory: header.find("MemoryGiB"),
            disk: header.find("StorageGiB"),
            arch: header.find("Arch"),
            price: header.find("Price"),
            spot_price: header.find("SpotPrice"),
        };
        if columns.price.is_none() && columns.spot_price.is_none() {
            return Err(Unreadable::NoColumn("Price"));
        }
        Ok(columns)
    }
}

fn kind(column: &str) -> Column {
    match column {
        "AcceleratorCount" | "vCPUs" | "MemoryGiB" | "Price" | "SpotPrice" | "StorageGiB" => {
            Column::Number
        }
        "InstanceType" | "AcceleratorName" | "GpuInfo" | "Region" | "AvailabilityZone" | "Arch" => {
            Column::Text
        }
        _ => Column::Ignored,
    }
}

/// A row whose numbers are read.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) line: u32,
    pub(super) instance_type: String,
    pub(super) region: String,
    pub(super) zone: String,
    pub(super) machine: Machine,
    pub(super) price: Option<MicroUsd>,
    pub(super) spot_price: Option<MicroUsd>,
    pub(super) raw: Option<RawId>,
}

/// A row with accelerators, whose memory is not decided yet.
#[derive(Debug)]
pub(super) struct Accelerator {
    pub(super) row: Row,
    /// As the catalogue writes it.
    pub(super) name: String,
    pub(super) count: u32,
    share_milli: u32,
    size: Option<u32>,
}

#[derive(Debug)]
struct Reader<'a> {
    builder: Builder,
    file: &'a str,
    header: Header,
    columns: Columns,
    sizes: Sizes,
    accelerators: Vec<Accelerator>,
    hosts: gcp::Hosts,
    /// Rows that had to be completed, with their prices, to tell the repeated ones.
    completed: BTreeMap<Key, (Option<MicroUsd>, Option<MicroUsd>)>,
}

/// Region, zone, name and count.
type Key = (String, String, String, u32);

impl Reader<'_> {
    fn skip(&mut self, line: u32, reason: Skip) {
        let file = self.file;
        self.builder
            .intake
            .skip(reason, || format!("{file} line {line}"));
    }

    fn line(&mut self, line: u32, text: Result<&str, LineError>) -> Result<(), Skip> {
        let mut fields = text.and_then(csv::split).map_err(in_words)?;
        let mended = csv::mend(&mut fields, &self.columns.kinds).map_err(in_words)?;
        let row = self.row(line, &fields)?;
        let accelerator = field(&fields, self.columns.accelerator);
        if let Some(name) = number::given(accelerator) {
            self.hold_accelerator(row, name, &fields)?;
        } else if row.instance_type.is_empty() {
            return Err("neither an instance type nor an accelerator".into());
        } else {
            self.plain(row);
        }
        self.builder.intake.mended += u32::from(mended);
        Ok(())
    }

    /// A machine without accelerators; some are only there to carry some.
    fn plain(&mut self, row: Row) {
        match gcp::role(&row.instance_type) {
            gcp::Role::Plain => self.offer(&row),
            gcp::Role::Host { sold_alone } => {
                if sold_alone {
                    self.offer(&row);
                }
                self.hosts.add(row);
            }
        }
    }

    fn offer(&mut self, row: &Row) {
        let added = self
            .builder
            .add_priced(&row.draft(), row.price, row.spot_price, row.raw);
        let (file, line) = (self.file, row.line);
        self.builder.tally(added, || format!("{file} line {line}"));
    }

    fn row(&mut self, line: u32, fields: &Fields<'_>) -> Result<Row, Skip> {
        let columns = &self.columns;
        let instance_type = fields[columns.instance_type].trim();
        let region = tidy_region(&fields[columns.region]);
        let zone = field(fields, columns.zone).trim();
        let cpu_milli =
            number::milli(field(fields, columns.cpus)).map_err(|_| "vCPUs is not a number")?;
        let memory_mib = number::gib_as_mib(field(fields, columns.memory))
            .map_err(|_| "MemoryGiB is not a number")?;
        let price =
            number::price(field(fields, columns.price)).map_err(|_| "Price is not a number")?;
        let spot_price = number::price(field(fields, columns.spot_price))
            .map_err(|_| "SpotPrice is not a number")?;
        let arch = arch::of_catalogue(field(fields, columns.arch), instance_type);
        // A disk that cannot be read is not known; the machine can be had all the same.
        let disk_mib = number::gib_as_mib(field(fields, columns.disk))
            .ok()
            .flatten();
        let names = self.header.names().iter().map(String::as_str);
        let raw = self.builder.raw(names.zip(fields.iter().map(Cow::as_ref)));
        Ok(Row {
            line,
            instance_type: instance_type.to_owned(),
            zone: if zone == region {
                String::new()
            } else {
                zone.to_owned()
            },
            region,
            machine: Machine {
                gpus: Vec::new(),
                cpu_milli,
                memory_mib,
                disk_mib,
                arch,
            },
            price,
            spot_price,
            raw,
        })
    }

    fn hold_accelerator(&mut self, row: Row, name: &str, fields: &Fields<'_>) -> Result<(), Skip> {
        let info = gpu_info::parse(field(fields, self.columns.gpu_info));
        let given = number::milli(field(fields, self.columns.count))
            .map_err(|_| "AcceleratorCount is not a number")?;
        let milli = given.or_else(|| info.count?.checked_mul(WHOLE));
        let (count, share_milli) = match milli {
            None | Some(0) => return Err("an accelerator without a count".into()),
            Some(milli) if milli < WHOLE => (1, milli),
            Some(milli) if milli % WHOLE == 0 => (milli / WHOLE, WHOLE),
            Some(_) => return Err("AcceleratorCount is neither whole nor a part of one".into()),
        };
        if let Some(size) = info.size {
            self.sizes.observe(name, count, size);
        }
        self.accelerators.push(Accelerator {
            row,
            name: name.to_owned(),
            count,
            share_milli,
            size: info.size,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<Snapshot, Unreadable> {
        for mut held in std::mem::take(&mut self.accelerators) {
            let size = held
                .size
                .map(|size| self.sizes.of_one(&held.name, held.count, size));
            let group = GpuGroup::observed(&held.name, held.count, size, held.share_milli);
            let is_tpu = group.vendor == Some(Vendor::Google);
            let (line, has_name) = (held.row.line, !held.row.instance_type.is_empty());
            held.row.machine.arch = held
                .row
                .machine
                .arch
                .or_else(|| arch::of_accelerator(group.name.as_str()));
            held.row.machine.gpus = vec![group];
            if has_name {
                self.offer(&held.row);
            } else if is_tpu {
                held.row.instance_type = gpu::canonical(&held.name).as_str().to_owned();
                self.offer(&held.row);
            } else if let Err(reason) = self.complete(&held) {
                self.skip(line, reason);
            }
        }
        let intake = &self.builder.intake;
        if intake.rows == 0 {
            return Err(Unreadable::NoRows);
        }
        if let Some(worst) = intake.worst().filter(|_| self.builder.is_empty()) {
            return Err(Unreadable::NothingUsable(worst));
        }
        Ok(self.builder.finish())
    }

    /// Offers an accelerator in every host machine of its zone that takes it.
    fn complete(&mut self, held: &Accelerator) -> Result<(), Skip> {
        let prices = (held.row.price, held.row.spot_price);
        match self.completed.entry(held.key()) {
            Entry::Occupied(known) if *known.get() == prices => {
                self.builder.intake.repeated += 1;
                return Ok(());
            }
            Entry::Occupied(_) => {
                return Err("another row has this accelerator at another price".into());
            }
            Entry::Vacant(slot) => slot.insert(prices),
        };
        for row in self.hosts.complete(held)? {
            self.builder
                .add_priced(&row.draft(), row.price, row.spot_price, row.raw);
        }
        Ok(())
    }
}

impl Row {
    fn draft(&self) -> Draft<'_> {
        Draft {
            region: &self.region,
            zone: &self.zone,
            instance_type: &self.instance_type,
            capacity_type: CapacityType::OnDemand,
            machine: &self.machine,
            price: None,
            availability: Availability::Unknown,
        }
    }
}

impl Accelerator {
    fn key(&self) -> Key {
        (
            self.row.region.clone(),
            self.row.zone.clone(),
            self.name.clone(),
            self.count,
        )
    }
}

fn field<'a>(fields: &'a Fields<'_>, at: Option<usize>) -> &'a str {
    at.and_then(|at| fields.get(at)).map_or("", Cow::as_ref)
}

fn in_words(error: LineError) -> Skip {
    error.to_string().into()
}

/// A region as a provider means it: `, US, NA` is `US, NA`.
pub(super) fn tidy_region(region: &str) -> String {
    if !region.contains(',') {
        return region.trim().to_owned();
    }
    let parts: Vec<&str> = region
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests;
