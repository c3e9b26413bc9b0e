//! `leveret links DIR`: RabbitMQ's tools by their names, all of them this program.

use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;

use super::{StartError, failed};
use crate::config::Persona;
use crate::ctl::Tool;

/// Makes the links, and `dir` if it is not there. Links that are there already are replaced, files
/// are not.
pub(super) fn make(dir: &Path) -> Result<ExitCode, StartError> {
    std::fs::create_dir_all(dir).map_err(failed(format!("cannot make {}", dir.display())))?;
    let program = std::env::current_exe().map_err(failed("cannot find this program"))?;
    let names = Tool::ALL.iter().map(|tool| tool.name()).chain([Persona::SERVER]);
    for name in names {
        let link = dir.join(name);
        if link == program || is_program(&link, &program) {
            continue;
        }
        replace(&link, &program)
            .map_err(failed(format!("cannot make the link {}", link.display())))?;
        println!("{} -> {}", link.display(), program.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a real file of that name stands beside this program, as `leveretctl` does.
fn is_program(link: &Path, program: &Path) -> bool {
    link.is_file() && !link.is_symlink() && link.parent() == program.parent()
}

fn replace(link: &Path, program: &Path) -> io::Result<()> {
    match link.symlink_metadata() {
        Ok(metadata) if metadata.is_symlink() => std::fs::remove_file(link)?,
        Ok(_) => {
            let kind = io::ErrorKind::AlreadyExists;
            return Err(io::Error::new(kind, "a file of that name is there and is no link"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    symlink(program, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_replaced_and_files_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (link, file) = (dir.path().join("a"), dir.path().join("b"));
        replace(&link, Path::new("/first")).unwrap();
        replace(&link, Path::new("/second")).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("/second"));
        std::fs::write(&file, "mine").unwrap();
        assert!(replace(&file, Path::new("/first")).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
