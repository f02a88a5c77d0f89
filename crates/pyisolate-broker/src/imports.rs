//! `import`: whether guest code may import a module. The guest's runtime asks where its own list says
//! no, so that a refusal is explained and kept like any other, and a policy that was loaded again
//! counts. Nothing is done here: code is resolved in the cell, and the jail is what holds it.

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;

use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

#[derive(Debug)]
struct Import(Act);

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    if action != "import" {
        return Err(no_action("import", action, &["import"]));
    }
    let mut payload = Payload::new("import", action, payload)?;
    let module = payload.text("module")?.to_owned();
    payload.end()?;
    Ok(Box::new(Import(Act::Import { module })))
}

impl Task for Import {
    fn act(&self) -> Option<&Act> {
        Some(&self.0)
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }

    fn perform(self: Box<Self>, _: &Session) -> Result<Granted, Refusal> {
        Ok(Value::None.into())
    }
}
