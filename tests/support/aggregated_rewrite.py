"""Serve requests on one aggregated worker a step at a time, in plain lists, as the compiled loops do."""

from __future__ import annotations

from dataclasses import dataclass, field

BLOCK = 4
STEP_S, SEQUENCE_S, CONTEXT_TOKEN_S = 0.5, 0.1, 0.001
"""Seconds of a step without prompts: so many, for each answer, and for each token of their contexts."""


def mixed_s(chunks: list[tuple[int, int]], answers: int = 0, contexts: int = 0) -> float:
    """Return the seconds of a step that reads `chunks` (new tokens, tokens before them) beside answers."""
    rows = answers + sum(new for new, _ in chunks)
    pairs = sum(new * (before + new / 2) for new, before in chunks)
    return 1.0 + 0.01 * rows + 0.0001 * pairs + CONTEXT_TOKEN_S * contexts


@dataclass
class Sequence:
    """Hold a request of the rewrite: `left` tokens to read, `made` tokens of its answer."""

    number: int
    prompt: int
    answer: int
    arrival_s: float
    left: int = 0
    made: int = 0
    seen: dict[str, float] = field(default_factory=dict)

    @property
    def read(self) -> int:
        return self.prompt + self.made


@dataclass
class Rewrite:
    """Serve on one worker, a step at a time, in plain lists."""

    budget: int
    slots: int
    kv_tokens: int
    evicts: bool
    waiting: list[Sequence]
    running: list[Sequence] = field(default_factory=list)
    now_s: float = 0.0
    peak: int = 0
    busy_s: float = 0.0

    def run(self) -> None:
        longest = max(sequence.answer for sequence in self.waiting)
        self.reserved = {
            sequence.number: -(-(sequence.prompt + longest) // BLOCK) * BLOCK for sequence in self.waiting
        }
        while self.waiting or self.running:
            self.admit()
            if not self.running:
                self.now_s = self.waiting[0].arrival_s
                continue
            while self.evicts and len(self.running) > 1 and self.lacks_room():
                newest = self.running.pop()
                newest.left = 0
                self.waiting.insert(0, newest)
            self.step()

    def taken(self, held: list[Sequence]) -> int:
        if not self.evicts:
            return sum(self.reserved[sequence.number] for sequence in held)
        return sum(sequence.read + BLOCK - 1 for sequence in held)

    def lacks_room(self) -> bool:
        return self.taken(self.running) + len(self.running) > self.kv_tokens

    def chunks(self) -> tuple[list[tuple[Sequence, int]], int]:
        """Return the chunks of the next step, and the tokens that they leave."""
        spare = self.budget - len([sequence for sequence in self.running if not sequence.left])
        unit, chunks = max(min(BLOCK, spare), 1), []
        for sequence in self.running:
            new = sequence.left if sequence.left <= spare else spare - spare % unit
            if sequence.left and not new:
                return chunks, 0
            if sequence.left:
                chunks.append((sequence, new))
                spare -= new
        return chunks, spare

    def admit(self) -> None:
        while self.waiting and len(self.running) < self.slots and self.waiting[0].arrival_s <= self.now_s:
            head = self.waiting[0]
            needed = self.taken([*self.running, head]) + (len(self.running) + 1 if self.evicts else 0)
            if self.running and (needed > self.kv_tokens or self.chunks()[1] <= 0):
                return
            self.waiting.pop(0)
            head.left = head.read
            head.seen.setdefault("start", self.now_s)
            self.running.append(head)

    def step(self) -> None:
        decoding = [sequence for sequence in self.running if not sequence.left]
        chunks, _ = self.chunks()
        contexts = sum(sequence.read for sequence in decoding)
        step_s = STEP_S + SEQUENCE_S * len(decoding) + CONTEXT_TOKEN_S * contexts
        if chunks:
            step_s = mixed_s([(new, s.read - s.left) for s, new in chunks], len(decoding), contexts)
            self.busy_s += step_s
        self.now_s += step_s
        for sequence, new in chunks:
            sequence.left -= new
        ended = [sequence for sequence, _ in chunks if not sequence.left]
        for sequence in decoding + ended:
            sequence.made += 1
            sequence.seen.setdefault("first", self.now_s)
        self.peak = max(self.peak, self.taken(self.running) - (len(ended) if self.evicts else 0))
        for sequence in decoding + ended:
            if sequence.made == sequence.answer:
                sequence.seen["done"] = self.now_s
        self.running = [sequence for sequence in self.running if "done" not in sequence.seen]
