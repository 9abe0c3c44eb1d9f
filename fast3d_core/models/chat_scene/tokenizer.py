"""Chat-Scene's tokeniser: LLaMA's sentencepiece model plus 100 object tokens, as transformers 4.31 tokenised.

Newer tokenisers split text around `<OBJxxx>` differently, which moves every following token; so the rules of
`LlamaTokenizer(use_fast=False, legacy=False)` of transformers 4.31.0 (Apache-2.0) are restated here on top of
sentencepiece itself:

- text is cut at special tokens; whitespace next to an `<OBJxxx>` is dropped, next to `<s>`, `</s>`, `<unk>` it is kept;
- every piece of text is encoded on its own; a piece that follows a special token loses the `▁` that sentencepiece puts
  in front, and what remains is looked up in the vocabulary again (an unknown rest becomes `<unk>`).
"""

import re
from pathlib import Path

import sentencepiece

from fast3d_core.errors import DataError
from fast3d_core.files.files import need_file
from fast3d_core.mentions import MOST, mention

_SPACE = "▁"  # sentencepiece's visible space


class ChatSceneTokenizer:
    """Text <-> token ids; ids from `vocab_size` on are the object tokens.

    Args:
        folder: the LLaMA folder; only its `tokenizer.model` is read.
        objects: number of object tokens appended to the vocabulary (Chat-Scene: 100).
    """

    def __init__(self, folder: Path, objects: int = 100):
        if objects > MOST:
            raise DataError(f"model.checkpoint: it has {objects} object tokens, but their names have three digits")
        path = need_file(folder / "tokenizer.model", "model.llm")
        self.sentencepiece = sentencepiece.SentencePieceProcessor()
        try:
            self.sentencepiece.Load(str(path))
            self.vocab_size: int = self.sentencepiece.get_piece_size()
            pieces = [self.sentencepiece.id_to_piece(i) for i in range(self.vocab_size)]
        except (RuntimeError, OSError, ValueError):  # or pieces that are no UTF-8
            raise DataError(f"model.llm: {path} is not a sentencepiece model; is it a complete download?") from None
        self.bos_id: int = self.sentencepiece.bos_id()
        self.eos_id: int = self.sentencepiece.eos_id()
        self.unk_id: int = self.sentencepiece.unk_id()
        if self.bos_id < 0 or self.eos_id < 0 or "" in pieces:
            raise DataError(f"model.llm: {path} is not LLaMA's tokenizer: it has no <s> or </s>, or empty pieces")
        control = [self.bos_id, self.eos_id, self.unk_id]
        self._control = {pieces[i]: i for i in control if i >= 0}
        self._objects = {mention(slot): self.vocab_size + slot for slot in range(objects)}
        self._object_names = {i: token for token, i in self._objects.items()}
        special = [*self._control, *self._objects]
        self._cut = re.compile("(" + "|".join(re.escape(token) for token in special) + ")")

    def __len__(self) -> int:
        return self.vocab_size + len(self._objects)

    def encode(self, text: str, *, bos: bool = False) -> list[int]:
        """Token ids of `text`, with `<s>` in front if `bos`."""
        # The leading mark distinguishes the first piece from the others below; marks inside the text would be mistaken
        # for it.
        pieces = [piece for piece in self._cut.split(_SPACE + text.replace(_SPACE, " ")) if piece]
        for i, piece in enumerate(pieces):
            if piece in self._objects:
                if i > 0:
                    pieces[i - 1] = pieces[i - 1].rstrip()
                if i + 1 < len(pieces):
                    pieces[i + 1] = pieces[i + 1].lstrip()
        ids = [self.bos_id] if bos else []
        for piece in pieces:
            if piece in self._objects:
                ids.append(self._objects[piece])
            elif piece in self._control:
                ids.append(self._control[piece])
            elif piece:
                ids += self._encode_piece(piece)
        return ids

    def _encode_piece(self, text: str) -> list[int]:
        first = text.startswith(_SPACE)
        if first:
            text = text[1:]
        tokens: list[str] = self.sentencepiece.encode(text, out_type=str)
        if tokens and not first and not text.startswith(" ") and tokens[0].startswith(_SPACE):
            tokens[:1] = [tokens[0][1:]] if len(tokens[0]) > 1 else []
        return [self.sentencepiece.piece_to_id(token) for token in tokens]

    def decode(self, ids: list[int]) -> str:
        """Text of `ids`, special tokens included, with the spacing of transformers 4.31 (a space around `<OBJxxx>`)."""
        parts: list[str] = []
        run: list[int] = []
        for i in ids:
            if i in self._object_names:
                if run:
                    parts.append(self._decode_run(run))
                    run = []
                parts.append(self._object_names[i])
            else:
                run.append(i)
        if run:
            parts.append(self._decode_run(run))
        return " ".join(parts)

    def _decode_run(self, ids: list[int]) -> str:
        """Ordinary and control tokens; a control token gets a space before the text that it closes."""
        names = {i: name for name, i in self._control.items()}
        text, after_control = "", False
        pending: list[int] = []
        for position, i in enumerate(ids):
            if i in names:
                if not after_control and position != 0:
                    text += " "
                text += self._decode_plain(pending) + names[i]
                pending, after_control = [], True
            else:
                pending.append(i)
                after_control = False
        return text + self._decode_plain(pending)

    def _decode_plain(self, ids: list[int]) -> str:
        return self.sentencepiece.decode_pieces([self.sentencepiece.id_to_piece(i) for i in ids]) if ids else ""


def tidy_answer(text: str) -> str:
    """The answer as Chat-Scene's evaluation stores it: cut at `</s>`, `<s>` removed, double spaces and " ." tidied."""
    return text.split("</s>")[0].replace("<s>", "").replace("  ", " ").replace(" .", ".").strip()
