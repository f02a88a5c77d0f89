"""Merges a folder of monthly sales with the list of products, and writes three reports."""

import glob
import json
import os
import sys
from pathlib import Path

import numpy as np
import pandas as pd


def read_sales(folder):
    months = []
    for path in sorted(glob.glob(os.path.join(folder, "sales", "*.csv"))):
        month = pd.read_csv(path, parse_dates=["date"], dtype={"product": "string"})
        month["file"] = os.path.basename(path)
        months.append(month)
    return pd.concat(months, ignore_index=True)


def read_products(folder):
    names = [name for name in os.listdir(folder) if name.startswith("products")]
    with open(Path(folder) / names[0], encoding="utf-8", newline="") as file:
        return pd.read_csv(file, dtype={"product": "string"})


def totals_of(sales, products):
    merged = sales.merge(products, on="product", how="left", validate="many_to_one")
    merged["revenue"] = merged["units"] * merged["price"]
    return (
        merged.groupby(["category", "product"], observed=True)
        .agg(units=("units", "sum"), revenue=("revenue", "sum"), best=("units", "max"))
        .sort_values("revenue", ascending=False)
    )


def write_reports(totals, sales, folder):
    folder = Path(folder)
    (folder / "tables").mkdir(exist_ok=True)
    totals.to_csv(folder / "tables" / "totals.csv", float_format="%.2f")
    weekly = sales.set_index("date").resample("W")["units"].sum()
    weekly.to_csv(folder / "tables" / "weekly.csv.gz", compression={"method": "gzip", "mtime": 1})
    summary = {
        "files": sorted(sales["file"].unique()),
        "units": int(sales["units"].sum()),
        "first": str(sales["date"].min().date()),
        "best": [list(index) for index in totals.index[:2]],
    }
    with open(folder / "summary.json", "w") as file:
        json.dump(summary, file, indent=2)
    with open(folder / "report.txt", "w", encoding="utf-8") as file:
        file.write("Umsätze nach Produkt\n\n")
        for (category, product), row in totals.iterrows():
            file.write(f"{category:<10} {product:<8} {row.revenue:>12.2f} €\n")
        file.write(f"\n{len(sales)} Zeilen\n")


def check_round_trips(totals, sales, folder):
    """What pandas and numpy write, they read again."""
    folder = Path(folder)
    flat = totals.reset_index()
    flat.to_json(folder / "totals.json", orient="records", lines=True)
    again = pd.read_json(folder / "totals.json", orient="records", lines=True)
    print("json", np.allclose(flat["revenue"], again["revenue"]))
    sales.to_pickle(folder / "sales.pickle.bz2")
    print("pickle", pd.read_pickle(folder / "sales.pickle.bz2").equals(sales))
    (folder / "sales.pickle.bz2").unlink()
    weekly = pd.read_csv(folder / "tables" / "weekly.csv.gz", index_col="date")
    print("gzip", len(weekly), int(weekly["units"].sum()))
    units = sales["units"].to_numpy(np.float64)
    np.save(folder / "units.npy", units)
    np.savez_compressed(folder / "units.npz", units=units, revenue=flat["revenue"])
    print("npy", np.array_equal(np.load(folder / "units.npy"), units))
    with np.load(folder / "units.npz") as loaded:
        print("npz", loaded.files, loaded["revenue"].shape)
    (folder / "units.npz").unlink()
    mapped = np.memmap(folder / "units.npy", dtype=np.float64, mode="r", offset=128)
    print("memmap", mapped.shape, float(mapped.sum()))
    print("mapped npy", float(np.load(folder / "units.npy", mmap_mode="r")[-1]))
    (folder / "units.bin").write_bytes(units.tobytes())
    print("fromfile", float(np.fromfile(folder / "units.bin").sum()))


def main():
    source, target = sys.argv[1:]
    sales, products = read_sales(source), read_products(source)
    totals = totals_of(sales, products)
    write_reports(totals, sales, target)
    check_round_trips(totals, sales, target)
    print(totals.to_string())
    print(sorted(entry.name for entry in Path(target).iterdir()))


if __name__ == "__main__":
    main()
