//! Reads a catalogue in gpuhunt's CSV layout, by the names of its columns. One bad row is skipped
//! and counted, never fatal; a file that is no catalogue at all is refused whole.
//!
//! A row is one offer: prices are for the whole machine, memory and disk in GB that are GiB. Some
//! providers give machines with different accelerators the same name; these are told apart by what
//! they carry, as `n1-standard-8+T4x2`, so that none hides another.

use std::borrow::Cow;

use muster_model::constraints::CapacityType;
use muster_model::gpu::{self, GpuGroup};
use muster_model::requirements::Arch;
use rustc_hash::{FxHashMap, FxHashSet};

use super::arch;
use super::builder::{Added, Builder};
use super::csv::{self, Column, Fields, Header};
use super::intake::Reason;
use super::number;
use super::offer::{Availability, Draft, Machine, Source};
use super::rows::gpus;
use super::skypilot::Unreadable;
use super::snapshot::Snapshot;

/// Reads a file. `file` is its name, for the places of skipped rows.
pub fn read(backend: &str, file: &str, text: &[u8]) -> Result<Snapshot, Unreadable> {
    let (_, first) = csv::lines(text).next().ok_or(Unreadable::Empty)?;
    let header = Header::parse(first?)?;
    let columns = Columns::find(&header)?;
    let mut reader = Reader {
        builder: Builder::new(backend, Source::Catalog),
        ambiguous: ambiguous(text, &columns),
        header,
        columns,
    };
    for (line, text) in csv::lines(text).skip(1) {
        let intake = &mut reader.builder.intake;
        intake.rows = intake.rows.saturating_add(1);
        let place = || format!("{file} line {line}");
        let fields = text.and_then(|text| reader.columns.fields(text));
        let added = fields
            .map_err(|error| Reason::from(error.to_string()))
            .and_then(|(fields, mended)| Ok((reader.row(&fields)?, mended)));
        match added {
            Ok((added, mended)) => {
                reader.builder.intake.mended += u32::from(mended);
                reader.builder.tally(added, place);
            }
            Err(reason) => reader.builder.intake.skip(reason, place),
        }
    }
    let builder = reader.builder;
    if builder.intake.rows == 0 {
        return Err(Unreadable::NoRows);
    }
    if let Some(worst) = builder.intake.worst().filter(|_| builder.is_empty()) {
        return Err(Unreadable::NothingUsable(worst));
    }
    Ok(builder.finish())
}

/// Where the columns are that are read.
#[derive(Debug)]
struct Columns {
    kinds: Vec<Column>,
    name: usize,
    location: usize,
    price: usize,
    spot: usize,
    cpu: Option<usize>,
    memory: Option<usize>,
    gpu_count: Option<usize>,
    gpu_name: Option<usize>,
    gpu_memory: Option<usize>,
    gpu_vendor: Option<usize>,
    disk: Option<usize>,
    arch: Option<usize>,
    flags: Option<usize>,
}

impl Columns {
    fn find(header: &Header) -> Result<Self, Unreadable> {
        let need = |name: &'static str| header.find(name).ok_or(Unreadable::NoColumn(name));
        Ok(Self {
            kinds: header.names().iter().map(|name| kind(name)).collect(),
            name: need("instance_name")?,
            location: need("location")?,
            price: need("price")?,
            spot: need("spot")?,
            cpu: header.find("cpu"),
            memory: header.find("memory"),
            gpu_count: header.find("gpu_count"),
            gpu_name: header.find("gpu_name"),
            gpu_memory: header.find("gpu_memory"),
            gpu_vendor: header.find("gpu_vendor"),
            disk: header.find("disk_size"),
            arch: header.find("cpu_arch"),
            flags: header.find("flags"),
        })
    }

    /// A line's fields, and whether they had to be mended.
    fn fields<'a>(&self, line: &'a str) -> Result<(Fields<'a>, bool), csv::LineError> {
        let mut fields = csv::split(line)?;
        let mended = csv::mend(&mut fields, &self.kinds)?;
        Ok((fields, mended))
    }

    /// What a row's machine carries: the name and number of its accelerators, as they are written.
    fn carried<'a>(&self, fields: &'a Fields<'_>) -> (&'a str, &'a str) {
        (
            field(fields, self.gpu_name).trim(),
            field(fields, self.gpu_count).trim(),
        )
    }
}

fn kind(column: &str) -> Column {
    match column {
        "price" | "cpu" | "memory" | "gpu_count" | "gpu_memory" | "disk_size" => Column::Number,
        "instance_name" | "location" | "gpu_name" | "spot" | "gpu_vendor" | "flags"
        | "cpu_arch" => Column::Text,
        _ => Column::Ignored,
    }
}

/// The names under which there are machines that carry different accelerators.
fn ambiguous(text: &[u8], columns: &Columns) -> FxHashSet<String> {
    let mut first: FxHashMap<String, (String, String)> = FxHashMap::default();
    let mut ambiguous = FxHashSet::default();
    for (_, line) in csv::lines(text).skip(1) {
        let Ok(Ok((fields, _))) = line.map(|line| columns.fields(line)) else {
            continue;
        };
        let name = fields[columns.name].trim();
        let (gpu, count) = columns.carried(&fields);
        match first.get(name) {
            None => {
                first.insert(name.to_owned(), (gpu.to_owned(), count.to_owned()));
            }
            Some((known, number)) if (known.as_str(), number.as_str()) != (gpu, count) => {
                ambiguous.insert(name.to_owned());
            }
            Some(_) => {}
        }
    }
    ambiguous
}

#[derive(Debug)]
struct Reader {
    builder: Builder,
    header: Header,
    columns: Columns,
    ambiguous: FxHashSet<String>,
}

impl Reader {
    /// Adds a row; none if it has no price.
    fn row(&mut self, fields: &Fields<'_>) -> Result<Option<Added>, Reason> {
        let columns = &self.columns;
        if field(fields, columns.flags)
            .split(' ')
            .any(|flag| flag.ends_with("-cluster"))
        {
            return Err("it is had only as a part of a cluster".into());
        }
        let name = fields[columns.name].trim();
        if name.is_empty() {
            return Err("there is no instance_name".into());
        }
        let price = number::price(&fields[columns.price]).map_err(|_| "price is not a number")?;
        let capacity_type = capacity_type(&fields[columns.spot])?;
        let machine = columns.machine(fields, name)?;
        let names = self.header.names().iter().map(String::as_str);
        let raw = self.builder.raw(names.zip(fields.iter().map(Cow::as_ref)));
        let instance_type = match machine.gpus.first() {
            Some(group) if self.ambiguous.contains(name) => {
                Cow::Owned(format!("{name}+{}x{}", group.name, group.count))
            }
            Some(_) | None => Cow::Borrowed(name),
        };
        if price.is_none() {
            return Ok(None);
        }
        let draft = Draft {
            region: fields[columns.location].trim(),
            zone: "",
            instance_type: &instance_type,
            capacity_type,
            machine: &machine,
            price,
            availability: Availability::Unknown,
        };
        Ok(Some(self.builder.add(&draft, raw)))
    }
}

impl Columns {
    fn machine(&self, fields: &Fields<'_>, name: &str) -> Result<Machine, Reason> {
        let gpus = self.gpus(fields)?;
        let said = field(fields, self.arch);
        let arch: Option<Arch> = arch::of_catalogue(said, name);
        Ok(Machine {
            arch: arch.or_else(|| arch::of_gpus(&gpus)),
            gpus,
            cpu_milli: number::milli(field(fields, self.cpu)).map_err(|_| "cpu is not a number")?,
            memory_mib: number::gib_as_mib(field(fields, self.memory))
                .map_err(|_| "memory is not a number")?,
            // A disk that cannot be read is not known; the machine can be had all the same.
            disk_mib: number::gib_as_mib(field(fields, self.disk)).ok().flatten(),
        })
    }

    fn gpus(&self, fields: &Fields<'_>) -> Result<Vec<GpuGroup>, Reason> {
        let milli = number::milli(field(fields, self.gpu_count));
        let milli = milli.map_err(|_| "gpu_count is not a number")?.unwrap_or(0);
        let name = number::given(field(fields, self.gpu_name));
        let (name, count) = match (name, milli / 1000) {
            (_, 0) if milli == 0 => return Ok(Vec::new()),
            (None, _) => return Err("accelerators without a name".into()),
            (Some(_), _) if milli % 1000 != 0 => return Err("gpu_count is not whole".into()),
            (Some(name), count) => (name, count),
        };
        let each = number::gib_as_mib(field(fields, self.gpu_memory));
        let each = each.map_err(|_| "gpu_memory is not a number")?;
        Ok(gpus(
            &full_name(name, field(fields, self.gpu_vendor)),
            count,
            each,
        ))
    }
}

/// Google's accelerators are written without what makes them TPUs: `v5p-8` is `tpu-v5p-8`.
fn full_name<'a>(name: &'a str, vendor: &str) -> Cow<'a, str> {
    let google = vendor.trim().eq_ignore_ascii_case("google");
    if google && gpu::lookup(name).is_none() && !name.starts_with("tpu-") {
        Cow::Owned(format!("tpu-{name}"))
    } else {
        Cow::Borrowed(name)
    }
}

fn capacity_type(spot: &str) -> Result<CapacityType, Reason> {
    match spot.trim().to_ascii_lowercase().as_str() {
        "true" => Ok(CapacityType::Spot),
        "false" => Ok(CapacityType::OnDemand),
        _ => Err("spot is neither True nor False".into()),
    }
}

fn field<'a>(fields: &'a Fields<'_>, at: Option<usize>) -> &'a str {
    at.and_then(|at| fields.get(at)).map_or("", Cow::as_ref)
}

#[cfg(test)]
mod tests;
