"""What the doctor looks at for Chat-Scene alone: its LLM's folder, its tokeniser and its checkpoint."""

from fast3d_core.doctor.chat_scene import checkpoint, llm
from fast3d_core.doctor.chat_scene.files import large_files
from fast3d_core.doctor.findings import Check, ModelChecks

_LLM = "`fast3d download vicuna`, or name the LLM's folder in model.llm"
_CHECKPOINT = "`fast3d download chat-scene`, or name a checkpoint of this LLM in model.checkpoint"
_ANNOTATIONS = "`fast3d download annotations`, or `fast3d prepare`"

CHECKS = ModelChecks(
    files=(
        Check("model.llm", llm.weights, _LLM, reads="reading the names and shapes of the LLM's weights"),
        Check("model.llm", llm.tokeniser, _LLM),
        Check("model.checkpoint", checkpoint.tensors, _CHECKPOINT, reads="reading the checkpoint's small tensors"),
        Check("model.checkpoint", checkpoint.base, _CHECKPOINT),
        Check("model.checkpoint", checkpoint.training, _CHECKPOINT),
        Check("model.lora_alpha", checkpoint.lora_alpha, _CHECKPOINT),
    ),
    prompts=(Check("model.llm", llm.prompts, _LLM),),
    features=(Check("data.annotations", checkpoint.widths, _ANNOTATIONS),),
    deep=(Check("files", checkpoint.numbers),),
    large_files=large_files,
)
