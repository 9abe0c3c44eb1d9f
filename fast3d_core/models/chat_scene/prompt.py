"""The wording of Chat-Scene's prompts, and their token ids."""

from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer

# Chat-Scene's conversation (its prompts/system.txt and instruction.txt on one line).
PREFIX = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the user's questions. The conversation centers around an indoor scene. Object information: ["
)
AFTER_OBJECTS = "]. USER: "
QUESTION = " {prompt} ASSISTANT: "


class Wording:
    """Prompts as token ids: `prefix` | visual tokens | `after_objects` | `question(...)`."""

    def __init__(self, tokenizer: ChatSceneTokenizer):
        self._tokenizer = tokenizer
        self.prefix = tokenizer.encode(PREFIX, bos=True)
        self.after_objects = tokenizer.encode(AFTER_OBJECTS)

    def question(self, question: str, answer: str = "") -> list[int]:
        """Question, `ASSISTANT: `, and the answer if there is one, encoded as one text."""
        return self._tokenizer.encode(QUESTION.format(prompt=question) + answer)

    def question_rows(self, question: str) -> int:
        """How many tokens the published extraction takes for the question: one more than it has.

        It counts the tokens of " {prompt} " alone, whose trailing space is a token only there.
        """
        return len(self._tokenizer.encode(f" {question} "))

    def text_tokens(self, question: str) -> int:
        """Tokens of a prompt that are not visual."""
        return len(self.prefix) + len(self.after_objects) + len(self.question(question))
