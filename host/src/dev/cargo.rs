//! What cargo says of a build, as JSON a line (`--message-format=json`).
//!
//! Pure. Build scripts and macros print there, too: what isn't one of cargo's messages is passed over.

use std::io::{self, BufRead};
use std::path::PathBuf;

use cargo_metadata::{CrateType, Message, PackageId};

/// The longest line that is read, in bytes; a longer one is none of cargo's.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// The shared library that was built of a package, the last that is named. `begun` is called at the first line: cargo
/// has one for each crate that is or was built, and before that the versions of all of them are in `Cargo.lock`.
pub fn library(mut output: impl BufRead, id: &PackageId, begun: impl FnOnce()) -> io::Result<Option<PathBuf>> {
    let (mut library, mut line, mut begun) = (None, Vec::new(), Some(begun));
    while io::Read::take(&mut output, MAX_LINE).read_until(b'\n', &mut line)? > 0 {
        if let Some(begun) = begun.take() {
            begun();
        }
        if let Ok(Message::CompilerArtifact(artifact)) = serde_json::from_slice(&line)
            && artifact.package_id == *id
            && artifact.target.crate_types.contains(&CrateType::CDyLib)
        {
            let found = artifact.filenames.into_iter().find(|file| file.extension() == Some("so"));
            library = found.map(PathBuf::from);
        }
        line.clear();
    }
    Ok(library)
}
