//! The same two programs in other embedded languages: a loop of five integer operations, and fib by recursion.
//!
//! Each is compiled before the clock starts; each gives the value that all others give, or the run ends.

use koto::prelude::{KValue, Koto};
use mlua::{Function, Lua};
use rhai::{AST, Dynamic, Engine, OptimizationLevel, Scope};

use crate::measure::Error;

/// A language with both programs ready to run.
pub(crate) trait Peer {
    /// The loop, so many times around.
    fn spin(&mut self, rounds: i64) -> Result<i64, Error>;
    /// The number of that place in Fibonacci's row.
    fn fib(&mut self, place: i64) -> Result<i64, Error>;
}

const KOTO: &str = "\
export spin = |n|
  sum = 0
  i = 0
  while i < n
    sum = sum + i * 3 % 7 - 1
    i += 1
  sum

export fib = |n|
  if n < 2
    n
  else
    (fib n - 1) + (fib n - 2)
";

/// Koto's virtual machine.
pub(crate) struct KotoPeer(Koto);

impl KotoPeer {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut koto = Koto::default();
        koto.compile_and_run(KOTO).map_err(|error| error.to_string())?;
        Ok(Self(koto))
    }

    fn call(&mut self, name: &str, argument: i64) -> Result<i64, Error> {
        let value = self.0.call_exported_function(name, KValue::from(argument)).map_err(|error| error.to_string())?;
        match value {
            KValue::Number(number) => Ok(i64::from(number)),
            other => Err(format!("koto gave {}", other.type_as_string()).into()),
        }
    }
}

impl Peer for KotoPeer {
    fn spin(&mut self, rounds: i64) -> Result<i64, Error> {
        self.call("spin", rounds)
    }

    fn fib(&mut self, place: i64) -> Result<i64, Error> {
        self.call("fib", place)
    }
}

const RHAI: &str = "\
fn spin(n) {
    let sum = 0;
    let i = 0;
    while i < n {
        sum = sum + i * 3 % 7 - 1;
        i += 1;
    }
    sum
}
fn fib(n) {
    if n < 2 { n } else { fib(n - 1) + fib(n - 2) }
}
";

/// Rhai's tree walker.
pub(crate) struct RhaiPeer {
    engine: Engine,
    program: AST,
}

impl RhaiPeer {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut engine = Engine::new();
        engine.set_optimization_level(OptimizationLevel::Full);
        let program = engine.compile(RHAI)?;
        Ok(Self { engine, program })
    }

    fn call(&mut self, name: &str, argument: i64) -> Result<i64, Error> {
        let value: Dynamic = self.engine.call_fn(&mut Scope::new(), &self.program, name, (argument,))?;
        Ok(value.as_int()?)
    }
}

impl Peer for RhaiPeer {
    fn spin(&mut self, rounds: i64) -> Result<i64, Error> {
        self.call("spin", rounds)
    }

    fn fib(&mut self, place: i64) -> Result<i64, Error> {
        self.call("fib", place)
    }
}

const LUA: &str = "\
function spin(n)
    local sum = 0
    local i = 0
    while i < n do
        sum = sum + i * 3 % 7 - 1
        i = i + 1
    end
    return sum
end
local function fib_of(n)
    if n < 2 then return n end
    return fib_of(n - 1) + fib_of(n - 2)
end
fib = fib_of
";

/// Lua 5.4's virtual machine.
pub(crate) struct LuaPeer {
    spin: Function,
    fib: Function,
    /// The functions live as long as it does.
    _lua: Lua,
}

impl LuaPeer {
    pub(crate) fn new() -> Result<Self, Error> {
        let lua = Lua::new();
        lua.load(LUA).exec()?;
        Ok(Self { spin: lua.globals().get("spin")?, fib: lua.globals().get("fib")?, _lua: lua })
    }
}

impl Peer for LuaPeer {
    fn spin(&mut self, rounds: i64) -> Result<i64, Error> {
        Ok(self.spin.call(rounds)?)
    }

    fn fib(&mut self, place: i64) -> Result<i64, Error> {
        Ok(self.fib.call(place)?)
    }
}
