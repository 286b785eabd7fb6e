//! What grows step by step takes work in proportion to its size, although values never change.
//!
//! Work is counted in bytes allocated and not in time: twice the size must take about twice the bytes. A list that was
//! copied at every step would take four times as many.

mod running;

use allocation_counter::{AllocationInfo, measure};
use nexa_vm::value::Value;
use running::Desk;

const PROGRAM: &str = r##"
struct Shelf { books: list[int], counts: dict[str, int], name: str }
struct House { shelf: Shelf, doors: int }

flow pushed(n: int) -> int {
    let xs: list[int] = []
    for each i in range(0, n) { xs = xs.push(i) }
    return xs.len()
}
flow pushed_twice(n: int) -> int {
    let xs: list[int] = []
    for each i in range(0, n) { xs = xs.push(i).push(-i) }
    return xs.len()
}
flow added(n: int) -> int {
    let xs: list[int] = []
    for each i in range(0, n) { xs = xs + [i] }
    for each i in range(0, n) { xs += [i] }
    return xs.len()
}
flow set_by_index(n: int) -> int {
    let xs = range(0, n)
    for each i in range(0, n) { xs[i] = n - i }
    return xs.len()
}
flow counted(n: int) -> int {
    let counts: dict[str, int] = {}
    for each i in range(0, n) {
        counts["k#{i}"] = i
        counts = counts.set("k#{i}", (counts.get("k#{i}") ?? 0) + 1)
    }
    return counts.len()
}
flow fields(n: int) -> int {
    let shelf = Shelf { books: [], counts: {}, name: "s" }
    for each i in range(0, n) {
        shelf.books = shelf.books.push(i)
        shelf.counts["k#{i}"] = i
    }
    return shelf.books.len() + shelf.counts.len()
}
flow inner_fields(n: int) -> int {
    let house = House { shelf: Shelf { books: range(0, n), counts: {}, name: "s" }, doors: 1 }
    for each i in range(0, n) {
        house.shelf.books[i] = i
        house.shelf.books = house.shelf.books.push(i)
    }
    return house.shelf.books.len()
}
flow texts(n: int) -> int {
    let s = ""
    let t = ""
    let pair = { text: "" }
    for each i in range(0, n) {
        s = s + "line\n"
        t = "#{t}line #{i}\n"
        pair.text = pair.text + "x"
        s += "."
    }
    return s.len() + t.len() + pair.text.len()
}
fn with_one_more(xs: list[int], x: int) -> list[int] {
    return xs.push(x)
}
flow handed_over(n: int) -> int {
    let xs: list[int] = []
    for each i in range(0, n) { xs = with_one_more(xs, i) }
    return xs.len()
}
flow walked(n: int) -> int {
    let xs = range(0, n)
    let doubled = xs.map(fn(x) => 2 * x).filter(fn(x) => x % 3 != 0)
    let sorted = doubled.sort_by(fn(x) => 0 - x)
    let pairs = sorted.zip(xs).map(fn(p) => p)
    let grown: list[int] = []
    let folded = xs.fold(grown, fn(all, x) => all.push(x))
    return pairs.len() + folded.len()
}
"##;

fn work(flow: &str, size: i64) -> AllocationInfo {
    let mut desk = Desk::program(PROGRAM);
    let mut answer = String::new();
    let work = measure(|| answer = desk.run(flow, &[Value::Int(size)]));
    assert!(answer.parse::<i64>().is_ok_and(|len| len >= size), "{flow}: {answer}");
    work
}

#[test]
fn twice_the_size_takes_twice_the_work() {
    let flows = [
        "pushed",
        "pushed_twice",
        "added",
        "set_by_index",
        "counted",
        "fields",
        "inner_fields",
        "handed_over",
        "walked",
    ];
    for flow in flows {
        let (one, two) = (work(flow, 4_000), work(flow, 8_000));
        let grown = two.bytes_total as f64 / one.bytes_total as f64;
        assert!(grown < 2.4, "{flow}: {one:?}, then {two:?}: {grown:.2} times as many bytes");
        assert!(two.bytes_total < 8_000 * 4_000, "{flow}: {two:?}");
    }
}

/// What others still hold is never changed.
#[test]
fn a_value_that_is_still_held_stays_as_it_is() {
    let program = r##"
struct Shelf { books: list[int], name: str }
fn fails(xs: list[int]) -> list[int] {
    let ys = xs.push(99)
    return ys.push(ys[50])
}
flow main() -> list[any] {
    let xs = [1]
    let before = xs
    xs = xs.push(2)
    let shelf = Shelf { books: xs, name: "a" }
    let old = shelf
    shelf.books = shelf.books.push(3)
    shelf.books[0] = 7
    let grown = xs
    for each x in xs { xs = xs.push(x * 10) }
    let counts = { "a": 1 }
    let earlier = counts
    counts["b"] = 2
    counts = counts.remove("a")
    let text = "t"
    let shorter = text
    text = text + "u"
    let long = range(0, 200).join("")
    let kept_long = long
    long = long + "!"
    let longer = long
    long = "#{long}?"
    long += "."
    let kept = [1, 2]
    try { kept = fails(kept) } catch (e) { kept = kept.push(5) }
    try { kept[9] = 1 } catch (e) { kept = kept + kept }
    let same = [[1]]
    same[0] = same[0] + same[0]
    return [before, old.books, shelf.books, grown, xs, earlier, counts, shorter, text, kept_long.slice(486, 500), longer.slice(486, 500), long.slice(486, 500), kept, same]
}
"##;
    let expected = r##"[[1],[1,2],[7,2,3],[1,2],[1,2,10,20],{"a":1},{"b":2},"t","tu","8199","8199!","8199!?.",[1,2,5,1,2,5],[[1,1]]]"##;
    assert_eq!(Desk::program(program).run("main", &[]), expected);
    assert_eq!(Desk::program(program).stepping().run("main", &[]), expected);
}
