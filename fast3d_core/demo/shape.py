"""The sizes of the demo's model."""

from dataclasses import dataclass

from transformers import LlamaConfig


@dataclass(frozen=True)
class SmallShape:
    """Sizes of the demo's model; 10.2 M parameters with 1,024 words.

    Attributes:
        features: width of the 3D and of the 2D features.
        rope_theta: 1e6 and heads of 64 learn to match across 300 tokens; LLaMA's 1e4 and narrower heads did not.
        read_layer: the layer whose output the auxiliary readers see.
    """

    layers: int = 12
    width: int = 256
    heads: int = 4
    intermediate: int = 688
    objects: int = 100
    features: int = 64
    rope_theta: float = 1e6
    read_layer: int = 4

    def llama(self, vocab: int) -> LlamaConfig:
        """The LLM's config in Hugging Face's terms."""
        return LlamaConfig(
            vocab_size=vocab,
            hidden_size=self.width,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=2048,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
            tie_word_embeddings=False,
        )
