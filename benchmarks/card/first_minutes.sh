#!/bin/bash
# The first fifteen minutes on a lent CUDA card: docs/card.md says what to type, and in which order.
#
#   bash benchmarks/card/first_minutes.sh prepare DATA.tar.gz   here: the pictures, into the ignored folder .gpu
#   bash benchmarks/card/first_minutes.sh prepare VAR.git       here: the authors' code, from a fetched repository
#   bash benchmarks/card/first_minutes.sh train                 on the card, call 1 (600 s): checks beside a training
#   bash benchmarks/card/first_minutes.sh dit                   on the card, call 2: the diffusion transformer
#   bash benchmarks/card/first_minutes.sh speed                 on the card, call 2: time beside the authors' code
#
# Results go to $OUT as they come, at most eight files, none over 16 MiB. Settings by environment, for a rehearsal
# on a CPU too:
#   train: END=578 BUDGET=472 (seconds) DEPTH=12 BATCH=256 RATE=2e-3 MODEL=cifar10 PRESET=cifar10-small
#   speed: ALL=170 (seconds) SIZES=d16 ROUNDS=9
#   dit: END=300 BUDGET=END-60 BATCH=512
#   all: DEVICE=cuda, TINY= (--tiny: small parts); train: NO_CHECK=, BREAK= (1: the first training dies at once)
set -u
cd "$(dirname "$0")/../.." || exit 1
T0=$(date +%s)
passed() { echo $(($(date +%s) - T0)); }
left() { echo $((END - $(passed))); }
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_WAIT_POLICY=passive
export TORCHINDUCTOR_CACHE_DIR=/tmp/inductor TORCH_CUDNN_SDPA_DEPRIORITIZED=1
OUT=${OUT:-/tmp/card} DEVICE=${DEVICE:-cuda} TINY=${TINY:-}
WORK=runs/card

prepare() {
    mkdir -p .gpu
    if [ -d "$1" ]; then
        mkdir -p .gpu/VAR && git -C "$1" archive HEAD models dist.py utils | tar x -C .gpu/VAR || exit 1
    else
        # without test/, which no training on the card reads: the 64 MiB that travel hold the model that ships as well
        local unpacked
        unpacked=$(mktemp -d) && tar xzf "$1" -C "$unpacked" train && tar czf .gpu/cifar10.tar.gz -C "$unpacked" train
        local code=$?
        rm -rf "$unpacked"
        [ $code -eq 0 ] || exit 1
    fi
    # the diffusion transformer stays here: nothing on the card draws with it
    if [ -z "$(git status --porcelain assets/cifar10-dit)" ] && [ -d assets/cifar10-dit ]; then
        rm -r assets/cifar10-dit
        echo "assets/cifar10-dit is out of the way; afterwards: git checkout assets/cifar10-dit"
    fi
    local bytes
    bytes=$({ git ls-files -coz --exclude-standard | while IFS= read -r -d "" f; do [ -f "$f" ] && printf "%s\0" "$f"; done; find .gpu -type f -print0; } | du -cb --files0-from=- | tail -n 1 | cut -f1)
    echo "the working tree and .gpu: $((bytes / 1000000)) MB of the 67 that travel"
    [ "$bytes" -lt 67000000 ] || { echo "too much: take pictures out of $1, or files out of the tree" >&2; exit 1; }
}

check() { # results.jsonl grows part by part
    python3 -m benchmarks.card --out "$OUT" --parts info,equal --seconds 90 --device "$DEVICE" $TINY
    # shellcheck disable=SC2046
    timeout -k 5 150 python3 -m pytest -o addopts=-q -p no:cacheprovider --durations=5 $(grep -l needs_cuda tests/test_*.py)
    echo "== tests ended with $?"
}

learn() { # seconds of training, options; saves its state every minute, its weights at the end and on SIGTERM
    local budget=$1
    shift
    timeout -k 15 "$(left)" python3 -m hieramp train var --data $WORK/data --preset "${PRESET:-cifar10-small}" \
        --out $WORK/model --warm-start "${MODEL:-cifar10}" --depth "${DEPTH:-12}" --shift 2 --shift-until 0.94 \
        --batch-size "${BATCH:-256}" --learning-rate "${RATE:-2e-3}" --budget "${budget}s" "$@" >> "$OUT/train.log" 2>&1
}

last_words() { tail -c "$1" "$OUT/train.log" 2> /dev/null | tr '\r' '\n' | tail -n "$2"; }

train() {
    END=${END:-578}
    local budget=${BUDGET:-$((END - 106))} code checks
    rm -rf $WORK && mkdir -p $WORK/data && tar xzf .gpu/cifar10.tar.gz -C $WORK/data || exit 1
    python3 -m benchmarks.card.begin "${MODEL:-cifar10}" $WORK/model || exit 1
    echo "== prepared after $(passed) s"
    [ -n "${NO_CHECK:-}" ] || check > "$OUT/check.txt" 2>&1 &
    checks=$!
    if [ -n "${BREAK:-}" ]; then (exit 3) & else learn "$budget" & fi
    local run=$!
    for _ in $(seq 40); do # a training that dies in its first two minutes is begun again
        sleep 3
        kill -0 $run 2> /dev/null || break
    done
    echo "== after $(passed) s: $(last_words 300 1)"
    if ! kill -0 $run 2> /dev/null; then
        wait $run
        code=$?
        if [ $code -ne 0 ] && [ "$(left)" -gt "${AGAIN:-120}" ]; then
            echo "== training ended with $code; again, without torch.compile and CUDA graphs"
            last_words 3000 30
            rm -rf $WORK/model/training
            [ -f "$OUT/train.log" ] && mv "$OUT/train.log" $WORK/model/train-compiled.log
            export TORCH_COMPILE_DISABLE=1
            learn $(($(left) - 45)) --no-cuda-graphs &
            run=$!
        fi
    fi
    wait $run
    echo "== training ended with $? after $(passed) s"
    if ! ls $WORK/model/var*.safetensors > /dev/null 2>&1; then # the state was saved, the weights were not
        echo "== the weights of the last state saved"
        END=$((END + 30)) TORCH_COMPILE_DISABLE=1 learn 1 --resume --no-cuda-graphs
    fi
    last_words 1500 6
    cp $WORK/model/var*.safetensors $WORK/model/config.json "$OUT"/
    (cd $WORK/model && tar czf "$OUT/more.tgz" -- logs samples *.log 2> /dev/null)
    wait $checks # they end by themselves, long before the training
    tail -n 40 "$OUT/check.txt"
}

dit() {
    END=${END:-300}
    if [ ! -d $WORK/data ]; then mkdir -p $WORK/data && tar xzf .gpu/cifar10.tar.gz -C $WORK/data || exit 1; fi
    rm -rf $WORK/dit && python3 -m benchmarks.card.begin "${MODEL:-cifar10}" $WORK/dit || exit 1
    timeout -k 15 "$(left)" python3 -m hieramp train dit --data $WORK/data --preset "${PRESET:-cifar10-small}" \
        --out $WORK/dit --batch-size "${BATCH:-512}" --budget "${BUDGET:-$((END - 60))}s" >> "$OUT/train-dit.log" 2>&1
    echo "== training of the DiT ended with $? after $(passed) s"
    tail -c 1500 "$OUT/train-dit.log" | tr '\r' '\n' | tail -n 6
    cp $WORK/dit/dit*.safetensors $WORK/dit/latents*.safetensors "$OUT"/
    cp $WORK/dit/config.json "$OUT"/config-dit.json
    (cd $WORK/dit && tar czf "$OUT/more-dit.tgz" -- logs samples 2> /dev/null)
}

speed() {
    END=${ALL:-170}
    local batch share
    for batch in 1 25; do
        share=$((END * 35 / 100))
        timeout -k 3 $share python3 -m benchmarks.generate --reference .gpu/VAR --sizes "${SIZES:-d16}" --batch $batch \
            --rounds "${ROUNDS:-9}" --device "$DEVICE" > "$OUT/reference-$batch.txt" 2>&1
        echo "== batch $batch ended with $? after $(passed) s"
        tail -n 12 "$OUT/reference-$batch.txt"
    done
    python3 -m benchmarks.card --out "$OUT" --parts info,draw,micro --seconds $(($(left) - 5)) --device "$DEVICE" $TINY \
        > "$OUT/parts.txt" 2>&1
    echo "== the parts ended with $?"
    tail -n 60 "$OUT/parts.txt" | cut -c1-300
}

case "${1:-}" in
    prepare)
        [ $# -eq 2 ] || { echo "prepare what? DATA.tar.gz or the folder of a fetched repository" >&2; exit 1; }
        prepare "$2"
        exit
        ;;
    train | dit | speed) mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) && "$1" ;;
    *) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 1 ;;
esac
echo "== $(passed) s in all; in $OUT: $(ls "$OUT" | wc -l) files"
ls -l "$OUT"
