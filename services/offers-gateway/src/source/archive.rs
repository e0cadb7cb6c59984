//! Takes a list out of a zip, without ever unpacking more than a bound.

use std::io::{Cursor, Read as _};

use zip::ZipArchive;

/// Files in an archive at most; there is one for each provider.
const MAX_FILES: usize = 1000;

/// Whether bytes are a zip.
pub(super) fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06")
}

/// The file `{backend}.csv` in a zip, or else the only CSV in it. The error is in words.
pub(super) fn member(bytes: &[u8], backend: &str, limit: usize) -> Result<Vec<u8>, String> {
    let damaged = |error: zip::result::ZipError| format!("the zip cannot be read: {error}");
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(damaged)?;
    if archive.len() > MAX_FILES {
        return Err(format!("the zip holds {} files", archive.len()));
    }
    let name = chosen(&archive, backend)?;
    let file = archive.by_name(&name).map_err(damaged)?;
    let mut text = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(bound)
        .read_to_end(&mut text)
        .map_err(|error| format!("{name} in the zip cannot be unpacked: {error}"))?;
    if text.len() > limit {
        return Err(format!(
            "{name} in the zip is larger than {} MiB",
            limit >> 20
        ));
    }
    Ok(text)
}

fn chosen(archive: &ZipArchive<Cursor<&[u8]>>, backend: &str) -> Result<String, String> {
    let own = format!("{backend}.csv");
    let names = archive.file_names().filter_map(Result::ok);
    let lists: Vec<_> = names.filter(|name| name.ends_with(".csv")).collect();
    if lists.iter().any(|name| *name == own) {
        return Ok(own);
    }
    match lists.as_slice() {
        [only] => Ok(only.clone().into_owned()),
        [] => Err("there is no CSV in the zip".to_owned()),
        many => Err(format!(
            "there are {} CSVs in the zip, and none is {own}: name the backend after one of them",
            many.len()
        )),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::*;
    use zip::write::{SimpleFileOptions, ZipWriter};

    pub(in crate::source) fn packed(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn the_backends_own_list_or_the_only_one_is_taken() {
        let two = packed(&[("aws.csv", b"a"), ("gcp.csv", b"g"), ("version", b"1")]);
        assert!(is_zip(&two));
        assert_eq!(member(&two, "gcp", 10).unwrap(), b"g");
        assert!(
            member(&two, "other", 10)
                .unwrap_err()
                .contains("none is other.csv")
        );
        let one = packed(&[("aws.csv", b"a"), ("version", b"1")]);
        assert_eq!(member(&one, "other", 10).unwrap(), b"a");
        assert_eq!(
            member(&packed(&[]), "x", 10).unwrap_err(),
            "there is no CSV in the zip"
        );
    }

    #[test]
    fn what_unpacks_to_too_much_or_is_damaged_is_refused() {
        let bomb = packed(&[("a.csv", &vec![0; 5 << 20])]);
        assert!(bomb.len() < 100_000);
        assert!(
            member(&bomb, "a", 1 << 20)
                .unwrap_err()
                .contains("larger than 1 MiB")
        );
        let text: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
        let whole = packed(&[("a.csv", &text)]);
        for cut in [4, 20, whole.len() / 2, whole.len() - 5] {
            assert!(member(&whole[..cut], "a", 1 << 20).is_err(), "{cut}");
        }
        for at in (0..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = member(&damaged, "a", 1 << 20);
        }
    }
}
