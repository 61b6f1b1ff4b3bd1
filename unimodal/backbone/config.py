"""Sizes of the backbone, read from and written to the published root `config.json` (model type `llada2_moe`)."""

from typing import Any

from transformers import PreTrainedConfig

from unimodal.backbone.rotary import GRID_PERIODS


class BackboneConfig(PreTrainedConfig):
    """Architecture of the masked-diffusion mixture-of-experts transformer of LLaDA2.0 (arXiv 2512.15745, 2604.20796).

    The defaults are those of the published configuration class and differ from the published file, so a checkpoint
    states every field. They do not describe a model that can be built: `check` says what is allowed.
    Unknown fields are kept and written back.

    `grid_rotary_dim` is no field of the published files, which mean 0: so many of the rotated dimensions of each head
    turn with a picture code's row, and as many with its column, instead of with its position in the sequence
    (multi-axis rotary embedding, arXiv 2409.12191). `grid_rotary_periods` are the shortest and the longest period of
    these, in codes: short ones tell neighbours apart, and nothing is longer than pictures are.
    """

    model_type = "llada2_moe"

    vocab_size: int = 30592
    hidden_size: int = 1024
    intermediate_size: int = 2048
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_key_value_heads: int = 0
    head_dim: int | None = None
    hidden_act: str = "silu"
    use_qkv_bias: bool = False
    use_bias: bool = True
    use_qk_norm: bool = False
    rms_norm_eps: float = 1e-5
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    max_position_embeddings: int = 16384
    rope_theta: float = 10000.0
    partial_rotary_factor: float = 0.5
    grid_rotary_dim: int = 0
    grid_rotary_periods: tuple[float, float] = GRID_PERIODS
    rope_parameters: dict[str, Any] | None = None
    tie_word_embeddings: bool = False
    use_cache: bool = False
    sliding_window: int | None = None
    num_experts: int = 16
    num_shared_experts: int = 0
    num_experts_per_tok: int = 2
    n_group: int = 8
    topk_group: int = 4
    routed_scaling_factor: float = 2.5
    norm_topk_prob: bool = True
    score_function: str = "sigmoid"
    moe_intermediate_size: int = 512
    first_k_dense_replace: int = 0
    output_router_logits: bool = False
    image_token_offset: int = 157184
    pad_token_id: int | None = 126081
    eos_token_id: int | None = None
    mask_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # `rope_scaling` of sibling files holds multi-axis sections that text and code grids do not use.
        sibling = kwargs.pop("rope_scaling", None) or {}
        given = {**sibling, **(self.rope_parameters or {})}
        self.rope_theta = float(given.get("rope_theta", self.rope_theta))
        self.partial_rotary_factor = float(given.get("partial_rotary_factor", self.partial_rotary_factor))
        self.rope_parameters = {
            **{key: value for key, value in given.items() if key != "type"},
            "rope_type": given.get("rope_type", given.get("type", "default")),
            "rope_theta": self.rope_theta,
            "partial_rotary_factor": self.partial_rotary_factor,
        }
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        super().__post_init__(**kwargs)

    @property
    def rotary_dim(self) -> int:
        """How many dimensions of each head are rotated."""
        return int((self.head_dim or 0) * self.partial_rotary_factor)

    def is_dense(self, layer: int) -> bool:
        """Whether layer `layer` has a plain feed-forward instead of experts."""
        return layer < self.first_k_dense_replace

    def check(self) -> None:
        """Raises a ValueError naming the first field that does not describe a model this code computes."""
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        heads, groups = self.num_attention_heads, self.num_key_value_heads
        _require(heads % groups == 0, "num_key_value_heads", groups, f"a divisor of num_attention_heads ({heads})")
        _require(
            self.rotary_dim % 2 == 0 and 0 < self.rotary_dim <= (self.head_dim or 0),
            "partial_rotary_factor",
            self.partial_rotary_factor,
            f"a share of head_dim ({self.head_dim}) that is even and at least 2",
        )
        grid = self.grid_rotary_dim
        _require(
            grid % 2 == 0 and 0 <= 2 * grid < self.rotary_dim,
            "grid_rotary_dim",
            grid,
            f"even, and 0 or more up to less than half of the {self.rotary_dim} rotated dimensions",
        )
        shortest, longest = self.grid_rotary_periods
        _require(
            0 < shortest <= longest, "grid_rotary_periods", self.grid_rotary_periods, "two positive ones, in order"
        )
        rotary = (self.rope_parameters or {}).get("rope_type", "default")
        _require(rotary in ("default", "mrope"), "rope_parameters.rope_type", rotary, "'default'")
        _require(self.hidden_act == "silu", "hidden_act", self.hidden_act, "'silu'")
        _require(self.score_function == "sigmoid", "score_function", self.score_function, "'sigmoid'")
        _require(not self.tie_word_embeddings, "tie_word_embeddings", self.tie_word_embeddings, "false")
        _require(not self.sliding_window, "sliding_window", self.sliding_window, "null")
        if self.first_k_dense_replace >= self.num_hidden_layers:
            return
        experts, groups = self.num_experts, self.n_group
        _require(groups >= 1 and experts % groups == 0, "n_group", groups, f"a divisor of num_experts ({experts})")
        _require(experts // groups >= 2, "n_group", groups, f"two or more of the {experts} experts in each group")
        _require(1 <= self.topk_group <= groups, "topk_group", self.topk_group, f"1 to n_group ({groups})")
        most = self.topk_group * experts // groups
        _require(1 <= self.num_experts_per_tok <= most, "num_experts_per_tok", self.num_experts_per_tok, f"1 to {most}")

    def to_published(self) -> dict[str, Any]:
        """The content of the root `config.json`: every field of this class, then whatever else the file held."""
        everything = self.to_dict()
        own = [name for name in BackboneConfig.__annotations__]
        unset = {name for name in ("eos_token_id", "mask_token_id") if everything.get(name) is None}
        unset |= {"grid_rotary_dim", "grid_rotary_periods"} if not self.grid_rotary_dim else set()
        base = set(PreTrainedConfig().to_dict()) | {"dtype", "transformers_version", "_name_or_path"}
        extra = {name: value for name, value in everything.items() if name not in base and name not in own}
        return {
            "architectures": self.architectures or ["LLaDA2MoeModelLM"],
            "model_type": self.model_type,
            **{name: everything[name] for name in own if name not in unset},
            **extra,
        }


def _require(holds: bool, name: str, given: object, allowed: str) -> None:
    if not holds:
        raise ValueError(f"{name}: got {given!r}, allowed is {allowed}")
