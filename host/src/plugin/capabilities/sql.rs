//! `pawl:worker/sql`: statements against the databases that the route allows.

use super::{Capability, Grant};
use crate::plugin::bindings::sql::{Answer, Error, Host, Value, add_to_linker};
use crate::plugin::sql::Kind;
use wasmtime::component::HasSelf;

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &["pawl:worker/sql@0.1.0"],
    link: |linker| add_to_linker::<_, HasSelf<_>>(linker, |state| state),
    grant: Some(Grant { is_given: |allow| !allow.sql.is_empty(), line: "allow = { sql = [\"DATABASE\"] }" }),
};

impl Host for super::State {
    async fn query(&mut self, database: String, statement: String, parameters: Vec<Value>) -> Result<Answer, Error> {
        Ok(self.effects.run(Kind::Query, &database, &statement, &parameters).await?)
    }

    async fn execute(&mut self, database: String, statement: String, parameters: Vec<Value>) -> Result<Answer, Error> {
        Ok(self.effects.run(Kind::Execute, &database, &statement, &parameters).await?)
    }
}
