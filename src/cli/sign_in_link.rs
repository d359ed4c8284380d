//! The link that signs a browser in as an admin: shown to a terminal, else kept in a file.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::CommandFailure;
use crate::{app::App, sqlite};

/// The file's name in the data folder.
const FILE: &str = "sign-in-link";

/// A link that signs a browser in, once. Its text says so to who reads standard error; what is no
/// terminal may be a log, which others read, so that it learns only which file has the link. The
/// file goes with the value.
pub(super) enum SignInLink {
    Shown(String),
    Kept(PathBuf),
}

impl SignInLink {
    /// Makes one for `app`, whose data folder is `data`.
    pub(super) async fn make(app: &App, data: &Path) -> Result<Self, CommandFailure> {
        let code = app.sign_in_code().await.context("cannot make a sign-in link")?;
        let link = format!("http://{}/#code={code}", app.address());
        if io::stderr().is_terminal() {
            return Ok(Self::Shown(link));
        }
        // With Redis nothing else may have needed the folder.
        sqlite::make_folder(data).map_err(anyhow::Error::from)?;
        let path = data.join(FILE);
        keep(&path, &link)
            .with_context(|| format!("cannot keep the sign-in link in {}", path.display()))?;
        Ok(Self::Kept(path))
    }
}

/// Always a new file: who could open an older one would read this link as well.
fn keep(path: &Path, link: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{link}")
}

impl fmt::Display for SignInLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown(link) => {
                write!(f, "  Open this link, once, within 15 minutes:\n\n    {link}\n")
            }
            Self::Kept(path) => writeln!(
                f,
                "  Open the link in {}, once, within 15 minutes. It is not shown here, where it may \
                 become part of a log.",
                path.display()
            ),
        }
    }
}

impl Drop for SignInLink {
    fn drop(&mut self) {
        if let Self::Kept(path) = self {
            let _ = fs::remove_file(path); // it may be gone already, with the folder of a demo
        }
    }
}
