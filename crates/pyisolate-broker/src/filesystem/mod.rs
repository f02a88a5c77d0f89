//! `filesystem`: files and folders below the roots that the policy grants.
//!
//! A path is never walked by its name alone, and never looked at first and opened after. The root
//! is opened as a handle; the rest is walked below that handle by one `openat2` that follows no
//! link. If there is a link, it is read and what it leads to is asked of the policy like any other
//! path. So the file that is opened always lies where the policy was asked about, whoever renames
//! things meanwhile.
//!
//! The root of a grant is the host's word: links on the way to it are followed, unless the cell
//! itself could have put them there. What the host lets others write to is not guarded against: a
//! root that lies in a folder which another cell may change leads where that cell wants it to.
//!
//! Only regular files are opened, and only on file systems that hold files. Folders are listed.
//! Nothing else is opened at all, as opening a device or a FIFO is an act by itself.
//!
//! What a denial covers has no name in a listing. A grant with wildcards also allows to list, and
//! to ask whether there are, the folders that lead to what it could match; what it does not match
//! is left out there. Names that are no UTF-8 are left out too, as no rule can speak of them.

mod alias;
mod beneath;
mod bytes;
mod file;
mod find;
mod folder;
mod judge;
mod kind;
mod open;
mod request;
mod root;
mod stop;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;

use crate::outcome::{Failure, Granted, Refusal};
use crate::session::Session;
use crate::task::{Pace, Task};

pub(crate) use judge::leading;
pub(crate) use open::Open;
use request::{Aim, Request};

/// All of it may wait for a disk, and nothing tells a local disk from a server that is gone before
/// it was asked.
const PACE: Pace = Pace::Slow;

/// The typed request behind an action and its payload.
pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let request = Request::parse(action, payload)?;
    Ok(Box::new(FileTask { act: request.act(), request }))
}

#[derive(Debug)]
struct FileTask {
    act: Option<Act>,
    request: Request,
}

impl Task for FileTask {
    fn act(&self) -> Option<&Act> {
        self.act.as_ref()
    }

    fn check(&self, session: &Session) -> Result<(), Refusal> {
        let usage = self.request.usage();
        if let Request::Remove { path, .. } | Request::Rename { path, .. } = &self.request {
            judge::judge_entry(session, path)?;
        }
        match self.request.aim() {
            Aim::Path(path) => judge::judge(session, usage, path).map(drop)?,
            Aim::Handle(number) => {
                let file = session.files.get(number)?;
                match self.request {
                    Request::Close { .. } => {}
                    Request::Stat { .. } => file.check_any(session)?,
                    _ => file.check(session, usage)?,
                }
            }
        }
        match &self.request {
            Request::Rename { to, .. } => judge::judge_entry(session, to),
            _ => Ok(()),
        }
    }

    fn pace(&self) -> Pace {
        PACE
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        match self.request {
            Request::Read { from, offset, length } => file::read(session, &from, offset, length),
            Request::Write { path, data } => file::write(session, &path, &data),
            Request::WriteAt { handle, offset, data } => {
                file::write_at(session, handle, offset, &data)
            }
            Request::Append { to, data } => file::append(session, &to, &data),
            Request::Open { path, mode } => file::open(session, &path, mode),
            Request::Close { handle } => {
                session.files.close(handle)?;
                Ok(Value::None.into())
            }
            Request::Truncate { of, size } => file::truncate(session, &of, size),
            Request::List { path } => folder::list(session, &path),
            Request::Stat { of, follow } => folder::stat(session, &of, follow),
            Request::Exists { path } => folder::exists(session, &path),
            Request::Mkdir { path, parents, exist_ok } => {
                folder::mkdir(session, &path, parents, exist_ok)
            }
            Request::Remove { path, directory } => folder::remove(session, &path, directory),
            Request::Rename { path, to, replace } => folder::rename(session, &path, &to, replace),
        }
    }
}
