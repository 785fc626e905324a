"""A Llama-3-8B-shaped model with random weights, and what PyTorch makes of it, for the benches of the GPU engine.

    python3 llama8b.py FOLDER [LAYERS]    FOLDER/model.safetensors and config.json (bf16), q4_k.gguf (random Q4_K blocks), and
                                          reference.safetensors: 8,192 tokens, transformers' first choices at each in bf16 and
                                          in float32, and both logits at 128 positions
    python3 llama8b.py --baselines        linear layers by cuBLASLt, causal attention by cuDNN: TFLOP/s, medians of ten

Needs PyTorch with a GPU, transformers and safetensors. The output matrix is a permutation of the embedding with noise, so that
first choices have margins as trained models have them; layers add about as much to the residual stream as it holds.
"""
import json
import statistics
import struct
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

HIDDEN, FFN, HEADS, KV_HEADS, D, VOCABULARY = 4096, 14336, 32, 8, 128, 128256


def median_ms(run):
    times = []
    for i in range(12):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if i >= 2:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def baselines():
    print(torch.cuda.get_device_name(0), "PyTorch", torch.__version__, "cuDNN", torch.backends.cudnn.version())
    for n, k in ((4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336)):
        x, w = (torch.randn(m, k, device="cuda", dtype=torch.bfloat16) for m in (16384, n))
        ms = median_ms(lambda: F.linear(x, w))
        print(f"torch linear 16384 x {n} x {k}: {ms:.3f} ms {2 * 16384 * n * k / ms / 1e9:.1f} TFLOP/s", flush=True)
        scales = [t.abs().amax(1, keepdim=True).float() / 448 for t in (x, w)]
        codes = [(t.float() / s).to(torch.float8_e4m3fn) for t, s in zip((x, w), scales)]
        for fast in (False, True):
            ms = median_ms(lambda: torch._scaled_mm(codes[0], codes[1].t(), scale_a=scales[0], scale_b=scales[1].t(), out_dtype=torch.bfloat16, use_fast_accum=fast))
            print(f"torch _scaled_mm by rows, fast sums {fast}: {ms:.3f} ms {2 * 16384 * n * k / ms / 1e9:.1f} TFLOP/s", flush=True)
    from torch.nn.attention import SDPBackend, sdpa_kernel
    for tokens in (32768, 131072):
        q = torch.randn(1, HEADS, tokens, D, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(1, KV_HEADS, tokens, D, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            ms = median_ms(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
        print(f"cuDNN attention {tokens}: {ms:.2f} ms {2 * HEADS * D * tokens * tokens / ms / 1e9:.1f} TFLOP/s", flush=True)


def fill(model):
    torch.manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(1 + 0.1 * torch.randn_like(p))
            elif "embed" in name:
                p.normal_(0, 1)
            elif "lm_head" not in name:
                gain = 1.5 if "q_proj" in name or "k_proj" in name else 0.3 if "o_proj" in name or "down_proj" in name else 1.0
                p.normal_(0, gain / p.shape[1] ** 0.5)
        order = torch.randperm(VOCABULARY, device="cuda")
        embedding, output = model.model.embed_tokens.weight, model.lm_head.weight
        output.copy_(embedding[order] * (0.15 / HIDDEN**0.5) + torch.randn_like(output) / HIDDEN**0.5)


def write_q4_k(path, layers):
    """Random blocks: scales of half precision such that weights are about as large as the model's."""
    GGUF_U32, GGUF_F32, GGUF_STRING, F32, Q4_K, Q6_K = 4, 6, 8, 0, 12, 14
    text = lambda s: struct.pack("<Q", len(s)) + s.encode()
    keys = {"llama.block_count": layers, "llama.context_length": 131072 + 4096, "llama.embedding_length": HIDDEN, "llama.feed_forward_length": FFN,
            "llama.attention.head_count": HEADS, "llama.attention.head_count_kv": KV_HEADS}
    values = [text("general.architecture") + struct.pack("<I", GGUF_STRING) + text("llama")]
    values += [text(k) + struct.pack("<II", GGUF_U32, v) for k, v in keys.items()]
    values += [text(k) + struct.pack("<If", GGUF_F32, v) for k, v in (("llama.attention.layer_norm_rms_epsilon", 1e-5), ("llama.rope.freq_base", 5e5))]
    tensors = [("token_embd.weight", VOCABULARY, HIDDEN, Q4_K), ("output.weight", VOCABULARY, HIDDEN, Q6_K), ("output_norm.weight", 0, HIDDEN, F32)]
    for i in range(layers):
        tensors += [(f"blk.{i}.{n}.weight", r, c, Q4_K if r else F32) for n, r, c in (
            ("attn_norm", 0, HIDDEN), ("attn_q", HEADS * D, HIDDEN), ("attn_k", KV_HEADS * D, HIDDEN), ("attn_v", KV_HEADS * D, HIDDEN), ("attn_output", HIDDEN, HEADS * D),
            ("ffn_norm", 0, HIDDEN), ("ffn_gate", FFN, HIDDEN), ("ffn_up", FFN, HIDDEN), ("ffn_down", HIDDEN, FFN))]
    header, offset, sizes = b"", 0, []
    for name, rows, cols, kind in tensors:
        size = max(rows, 1) * cols // {F32: 1, Q4_K: 256, Q6_K: 256}[kind] * {F32: 4, Q4_K: 144, Q6_K: 210}[kind]
        dims = (cols, rows) if rows else (cols,)
        header += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind, offset)
        offset += (size + 31) // 32 * 32
        sizes.append(size)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values) + header
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % 32))
        for (_, _, _, kind), size in zip(tensors, sizes):
            if kind == F32:
                data = torch.ones(size // 4).view(torch.uint8)
            else:
                block, scales = {Q4_K: (144, (0, 2)), Q6_K: (210, (208,))}[kind]
                raw = torch.randint(0, 256, (size // block, block), dtype=torch.uint8, device="cuda")
                for at in scales:
                    raw[:, at:at + 2] = torch.full((size // block, 1), 6e-5, dtype=torch.float16, device="cuda").view(torch.uint8)
                data = raw.cpu().flatten()
            file.write(data.numpy().tobytes() + bytes(-size % 32))


def main(folder, layers):
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM
    folder.mkdir(parents=True, exist_ok=True)
    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=layers, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS,
                         max_position_embeddings=131072 + 4096, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, tie_word_embeddings=False)
    config._attn_implementation = "sdpa"
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    model.model.rotary_emb.__init__(config, device="cuda")  # its frequencies in float32, whatever the weights are
    fill(model)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "llama"}))

    tokens = torch.randint(0, VOCABULARY, (1, 8192), device="cuda")
    rows = torch.arange(63, 8192, 64, device="cuda")
    out = {"tokens": tokens[0].int().cpu()}
    with torch.no_grad():
        for kind in ("bf16", "f32"):
            if kind == "f32":
                model.float()
            hidden = model.model(tokens).last_hidden_state[0]
            out[f"first_{kind}"] = torch.cat([model.lm_head(h).float().argmax(-1) for h in hidden.split(512)]).int().cpu()
            out[f"logits_{kind}"] = model.lm_head(hidden[rows]).float().cpu()
    out["rows"] = rows.int().cpu()
    save_file(out, folder / "reference.safetensors")
    a, b = out["logits_bf16"], out["logits_f32"]
    same = (out["first_bf16"] == out["first_f32"]).float().mean().item()
    top = out["logits_f32"].topk(2).values
    print(f"transformers bf16 against its float32, {layers} layers: relative error {((a - b).norm() / b.norm()).item():.2e}, first choices {100 * same:.2f} %, "
          f"median margin {(top[:, 0] - top[:, 1]).median().item():.2f}, logits' deviation {b.std().item():.2f}")
    del model
    torch.cuda.empty_cache()
    write_q4_k(folder / "q4_k.gguf", layers)


if __name__ == "__main__":
    if sys.argv[1] == "--baselines":
        baselines()
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 32)
