//! The seven operations, version 1, frozen.

use std::fmt;

/// The version of the cell ABI. It changes only if an operation's meaning does.
pub const ABI_VERSION: u32 = 1;

/// One of the seven things that can cross the wall of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CellOp {
    /// Host: run source text in the cell's persistent namespace.
    Exec,
    /// Host: call `module.func` inside the cell and get its result.
    Call,
    /// Either: send one picklable message to the other side's channel.
    Post,
    /// Either: take the next item from the channel.
    Recv,
    /// Guest: a structured log event.
    Log,
    /// Guest: a numeric metric event.
    Metric,
    /// Guest: ask the broker for a privileged action under a granted capability.
    Request,
}

/// The operations in their frozen order.
pub const OPERATIONS: [CellOp; 7] = [
    CellOp::Exec,
    CellOp::Call,
    CellOp::Post,
    CellOp::Recv,
    CellOp::Log,
    CellOp::Metric,
    CellOp::Request,
];

impl CellOp {
    /// The name that both sides of the wall use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Call => "call",
            Self::Post => "post",
            Self::Recv => "recv",
            Self::Log => "log",
            Self::Metric => "metric",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for CellOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_is_seven_names_in_this_order() {
        let names: Vec<_> = OPERATIONS.iter().map(|op| op.as_str()).collect();
        assert_eq!(names, ["exec", "call", "post", "recv", "log", "metric", "request"]);
        assert_eq!(ABI_VERSION, 1);
    }
}
